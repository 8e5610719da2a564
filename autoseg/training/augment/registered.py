"""An augmentation that is registered as a function, such as a plugin's; it comes after those of `intensity` and `spatial`."""

from __future__ import annotations

import numpy as np

from autoseg.errors import AutosegError, PlanError
from autoseg.plan.plugins import plugin_failure, plugin_of
from autoseg.plan.registries import AUGMENTATIONS


def apply_registered(name: str, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Changes the intensities of a patch (C, Z, Y, X) as the registered function says; `default` and `none` have none.

    Raises:
        UsageError: the augmentation of a plugin has failed; names its line.
        PlanError: the augmentation returns something else than such an image.
    """
    augmentation = AUGMENTATIONS[name]
    if augmentation is None:
        return image
    shape, plugin = image.shape, plugin_of(f"{AUGMENTATIONS.kind} {name}")
    try:
        changed = augmentation(rng, image)
    except Exception as error:
        if plugin is None or isinstance(error, (AutosegError, MemoryError)):
            raise
        raise plugin_failure(f"the augmentation '{name}' fails", plugin.path, error, "mend that line") from error
    if not isinstance(changed, np.ndarray) or changed.shape != shape or changed.dtype.kind != "f":
        what = (
            f"an array {changed.shape} of {changed.dtype}" if isinstance(changed, np.ndarray) else f"a {type(changed).__name__}"
        )
        raise PlanError(
            f"the augmentation '{name}' returns another kind of image than it is given",
            file=plugin.path if plugin else None,
            found=what,
            allowed=f"an array {shape} of float32",
        )
    return changed.astype(np.float32, order="C", copy=False)
