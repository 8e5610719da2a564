"""Expected memory, disk and time of a configuration, by the arithmetic of `footprint`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.footprint import predicting_memory, prepared_bytes
from autoseg.plan import Footprint
from autoseg.planner.architecture import Architecture
from autoseg.planner.budget import Budget
from autoseg.planner.spacing import median_shape
from autoseg.planner.wording import billions, number


def estimate(
    fingerprint: Fingerprint, architecture: Architecture, budget: Budget, spacing: Sequence[float]
) -> tuple[Footprint, dict[str, str]]:
    """The footprint of a configuration, with reasons by dotted key.

    Args:
        spacing: mm along (z, y, x) of its prepared cases.
    """
    cost = architecture.cost
    shape = median_shape(fingerprint.cases, spacing)
    source = median_shape(fingerprint.cases, None)
    structures = max(0, cost.io.n_classes - 1)
    predicting = predicting_memory(
        architecture.network,
        architecture.topology.patch_size,
        cost.io,
        batch_size=architecture.batch_size,
        compute=cost.compute,
        source_voxels=prod(source),
        target_voxels=prod(shape),
    )
    prepared = prepared_bytes(len(fingerprint.cases), shape, n_channels=cost.io.n_channels, n_structures=structures)
    footprint = Footprint(
        training_gb=round(cost.training_gb(architecture.topology, architecture.batch_size), 2),
        prediction_ram_gb=round(predicting / 1e9, 2),
        prepared_gb=round(prepared / 1e9, 3),
        step_s=round(architecture.step_gmacs / budget.speed, 4),
    )
    where = "of the GPU's memory" if budget.device == "cuda" else "of RAM"
    training = f"{where} in {cost.compute}, weights, maps, loss and the libraries themselves"
    if footprint.training_gb > budget.memory_gb:
        training += (
            f"; more than {number(budget.memory_gb)} GB: nnU-Net's presets of this family take 9 to 12 GB where they say 8"
        )
    maps = [f"{n} {what}" for n, what in ((cost.io.n_classes, "classes"), (cost.io.n_landmarks, "landmarks")) if n]
    return footprint, {
        "footprint.training_gb": training,
        "footprint.prediction_ram_gb": f"for the median case of {number(prod(shape))} voxels and {' and '.join(maps)}",
        "footprint.prepared_gb": f"{len(fingerprint.cases)} cases; an upper bound: images of noise would take as much",
        "footprint.step_s": f"{billions(1e9 * architecture.step_gmacs)} multiply-accumulates, "
        f"{billions(1e9 * budget.speed)} a second",
    }
