"""The sampling of training patches: the share that must show a structure (nnU-Net), and whether rare ones are drawn first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from statistics import median

from autoseg.fingerprint.dataset import Fingerprint, StructureStatistics
from autoseg.plan import SamplingKind
from autoseg.planner.wording import percent

FOREGROUND_FRACTION = 0.33  # nnU-Net
LANDMARK_FRACTION = 0.5  # a convention, not measured
ON_LANDMARKS = "half of the patches are placed on a landmark, the others anywhere: they teach where none is"
MOST_FOREGROUND = 0.5  # with two thirds on structures trainings came out worse (benchmarks/results/sampling.md)
LEAST_SHOWN = 0.05  # share of the patches that should show each structure: 25 of 500 an epoch. A convention, not measured
RARE_BELOW = 0.5  # share of the cases: with cases drawn alike, a structure in fewer is drawn less than half as often as it could


@dataclass(frozen=True)
class Sampling:
    """The plan's `patch.sampling` and `patch.foreground_fraction`, with their reasons."""

    sampling: SamplingKind
    sampling_reason: str
    fraction: float
    fraction_reason: str


def plan_sampling(
    fingerprint: Fingerprint, patch_size: Sequence[int], spacing: Sequence[float], shape: Sequence[float]
) -> Sampling:
    """Chooses the sampling of a configuration.

    Args:
        patch_size, spacing, shape: of the configuration's grid: voxels, mm, voxels of the median case.
    """
    if not fingerprint.labels.names:
        return Sampling("cases", "every case is as likely as any other", LANDMARK_FRACTION, ON_LANDMARKS)
    structures = [s for s in fingerprint.structures if s.n_cases]
    n_cases = len(fingerprint.cases)
    if not structures:  # nnU-Net's fingerprints do not tell
        certain = "a third of the patches show a structure for certain, so that none is forgotten (nnU-Net)"
        return Sampling("cases", "every case is as likely as any other (nnU-Net)", FOREGROUND_FRACTION, certain)
    sampling, sampling_reason = _first_drawn(structures, n_cases)
    voxels = median(prod(c.shape_after_crop) for c in fingerprint.cases)
    chances = [_chance(s.mean_voxels / voxels, patch_size, spacing, shape) * s.n_cases / n_cases for s in structures]
    if sampling == "structures":
        forced = [1 / len(structures)] * len(structures)
    else:
        a_case = sum(s.n_cases for s in structures) / n_cases  # structures in a case, on average
        forced = [s.n_cases / n_cases / max(1.0, a_case) for s in structures]
    return Sampling(sampling, sampling_reason, *_fraction(structures, chances, forced))


def _first_drawn(structures: Sequence[StructureStatistics], n_cases: int) -> tuple[SamplingKind, str]:
    rarest = min(structures, key=lambda s: s.n_cases)
    where = f"'{rarest.name}' occurs in {rarest.n_cases} of {n_cases} cases"
    if rarest.n_cases < RARE_BELOW * n_cases:
        return "structures", f"{where}: a structure is drawn first, then a case with it, or it would hardly be learnt"
    if rarest.n_cases == n_cases:
        return "cases", f"every structure that occurs is in all {n_cases} cases: cases are drawn alike"
    return "cases", f"no structure is rarer than '{rarest.name}', in {rarest.n_cases} of {n_cases} cases: cases are drawn alike"


def _chance(share: float, patch_size: Sequence[int], spacing: Sequence[float], shape: Sequence[float]) -> float:
    """Probability that a patch at random shows a structure that fills `share` of the case, as a cube (in mm) somewhere in it.

    A patch of p voxels covers a point of n with p / n, whatever the place of the point is on average; an edge of e adds e - 1.
    """
    edge = (share * prod(shape) * prod(spacing)) ** (1 / len(shape))
    return prod(min(1.0, (p + max(1.0, edge / s) - 1) / n) for p, s, n in zip(patch_size, spacing, shape))


def _fraction(structures: Sequence[StructureStatistics], chances: Sequence[float], forced: Sequence[float]) -> tuple[float, str]:
    """Raised until the structure that is seen least is seen often enough.

    Args:
        chances: share of the patches anywhere that show each structure.
        forced: share of the patches placed on a structure that are placed on this one.
    """
    shown = [FOREGROUND_FRACTION * f + (1 - FOREGROUND_FRACTION) * c for c, f in zip(chances, forced)]
    least = shown.index(min(shown))
    chance, own = chances[least], forced[least]
    found = (
        f"{percent(chance)} of the patches anywhere are expected to show '{structures[least].name}', the structure seen least, "
        f"and {percent(own)} of those placed on a structure are placed on it"
    )
    if shown[least] >= LEAST_SHOWN or own <= chance:
        return FOREGROUND_FRACTION, f"share of nnU-Net; {found}"
    wanted = ceil(100 * (LEAST_SHOWN - chance) / (own - chance)) / 100
    fraction = min(MOST_FOREGROUND, wanted)
    reached = fraction * own + (1 - fraction) * chance
    return fraction, f"raised from nnU-Net's {FOREGROUND_FRACTION}, so that {percent(reached)} of all patches show it: {found}"
