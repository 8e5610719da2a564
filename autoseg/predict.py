"""From image files to label maps on the images' own grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.allocator import keep_freed_memory
from autoseg.batch import Failure, run_cases
from autoseg.dataset import Case, check_apart, output_path, probabilities_path
from autoseg.errors import GeometryError
from autoseg.image import LabelMap
from autoseg.io import read_image, write_label_map, write_probabilities
from autoseg.model import Model
from autoseg.postprocess import Rule, apply_rules
from autoseg.progress import log

WORKERS = 2  # one case is read or written while the network works on the other


@dataclass(frozen=True)
class PredictReport:
    """How many cases were predicted now, and how many were there already."""

    done: int
    skipped: int


def predict(
    model: Model,
    rules: Sequence[Rule],
    cases: Sequence[Case],
    out: Path,
    failures: list[Failure],
    mirror: bool = True,
    save_probabilities: bool = False,
    overwrite: bool = False,
    workers: int = WORKERS,
) -> PredictReport:
    """Predicts every case into `out`, in the format of its first image; finished outputs are skipped.

    Args:
        rules: component rules applied to each label map.
        mirror: average over the plan's mirror axes.
        workers: threads; 0 for none.
        save_probabilities: also write `<case>_probabilities<ending>`, one component per class, background first.

    Raises:
        UsageError: an image lies in `out`.
    """
    keep_freed_memory()
    channels = tuple(c.name for c in model.plan.data.channels)
    labels = model.plan.data.labels
    check_apart(cases, out)
    todo = [c for c in cases if overwrite or not all(path.exists() for path in _wanted(out, c, save_probabilities))]
    if len(todo) < len(cases):
        log.warning(
            "%d of %d cases are there already and skipped; --overwrite predicts them again", len(cases) - len(todo), len(cases)
        )

    def work(case: Case) -> None:
        image = read_image(case.images, channels)
        if model.configuration.ndim == 3 and min(model.configuration.window) > 1 == min(image.grid.shape):
            raise GeometryError(
                "a single slice cannot be predicted by a model of volumes",
                file=case.images[0],
                found=f"shape {image.grid.shape}",
                allowed="several slices (z, y, x)",
            )
        predicted, probabilities = model.predict_image(image, mirror, save_probabilities)
        if probabilities is not None:
            write_probabilities(probabilities_path(out, case), probabilities, like=case.images[0])
        target = output_path(out, case)
        if overwrite or not target.exists():  # one that lacks only its probabilities may have been corrected by hand
            indices = apply_rules(predicted, rules, labels)
            write_label_map(target, LabelMap(indices, image.grid, labels), like=case.images[0])

    done = sum(1 for _ in run_cases(work, todo, "predict", failures, workers))
    return PredictReport(done, len(cases) - len(todo))


def _wanted(out: Path, case: Case, probabilities: bool) -> tuple[Path, ...]:
    return (output_path(out, case), *([probabilities_path(out, case)] if probabilities else []))
