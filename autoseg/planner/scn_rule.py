"""Rule: whether landmarks get a spatial configuration branch (SCN, Payer et al. 2019), and its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, log2

from autoseg.fingerprint.landmarks import CasePoints, LandmarkStatistics, covisibility, patch_scale_needed
from autoseg.footprint import scn_layers
from autoseg.imaging.geometry import Triple
from autoseg.plan import ScnForm, ScnPlan
from autoseg.planner.landmark_rules import MOST_CASES
from autoseg.planner.wording import billions, number, numbers, percent, size

NO_SCN = "no spatial configuration branch: "
FEWEST_LANDMARKS = 3  # one or two have no arrangement
FEW_CASES = 150  # and fewer cases than that
LEAST_RHO, LEAST_KAPPA = 0.8, 2.0
"""A branch needs few cases, and more than both. Conventions: no comparison is published in which only one of them varied."""
HIDDEN_LAYERS = 3
WIDEST = {2: 32, 3: 24}
"""Voxels along the longest axis of the coarse maps, as in Payer et al. 2019; half of them where that takes long."""
LARGEST_KERNEL = {2: 11, 3: 7}  # Payer et al., Medical Image Analysis 2019
FEATURES = {2: 128, 3: 64}  # the same
LEAST_FEATURES = 16
MOST_WORK = 0.25  # of the network's own multiply-accumulates


@dataclass(frozen=True)
class ScnChoice:
    """The branch, or None for none, with its reason; and the reasons for its fields, by their names."""

    scn: ScnPlan | None
    reason: str
    reasons: dict[str, str] = field(default_factory=dict)


def plan_scn(
    statistics: LandmarkStatistics,
    cases: Sequence[CasePoints],
    patch: Triple,
    spacing: Sequence[float],
    network_macs: float,
    *,
    slice_axis: int | None = None,
) -> ScnChoice:
    """Decides whether landmarks are told apart by where the others are (Payer et al. 2019), and how.

    A network whose patches show all landmarks sees that by itself: measured in benchmarks/bench_scn.py.

    Args:
        patch, spacing: as in `plan_context`, but of the maps that the network makes.
        slice_axis: the axis through the slices of a 2D network.
        network_macs: multiply-accumulates of the network on a patch.
    """
    patch_mm = [n * s for n, s in zip(patch, spacing)]
    objection = _objection(statistics, cases, patch_mm)
    if objection:
        return ScnChoice(None, f"{NO_SCN}{objection}")
    scn, reasons = shape_scn(statistics, patch, spacing, network_macs, slice_axis=slice_axis)
    share = covisibility(cases, patch_mm) or 0.0
    shown = f"a patch of {numbers(patch_mm)} mm around a landmark shows {percent(share)} of the pairs"
    return ScnChoice(scn, f"a spatial configuration branch: {shown}; {_evidence(statistics)[1]}", reasons)


def scn_macs(scn: ScnPlan, n_landmarks: int, size: Sequence[int]) -> float:
    """Multiply-accumulates of a branch that is fed maps of `size`, one number an axis of the factor."""
    return float(sum(c.inputs * c.outputs * c.voxels * c.taps for c in scn_layers(scn, size, n_landmarks)))


def _objection(statistics: LandmarkStatistics, cases: Sequence[CasePoints], patch_mm: Sequence[float]) -> str:
    """The reason that rules a branch out, or nothing."""
    n = len(statistics.landmarks)
    if n < FEWEST_LANDMARKS:
        return f"{n} landmarks are fewer than {FEWEST_LANDMARKS} and have no arrangement"
    if all(len(case.present_points) < 2 for case in cases):
        return "no case has two landmarks"
    whole = float((patch_scale_needed(cases, patch_mm, 1.0) <= 1 + 1e-9).mean())
    if whole >= MOST_CASES:
        return (
            f"a patch of {numbers(patch_mm)} mm shows all landmarks in {percent(whole)} of the cases: the network itself sees "
            "where the others are"
        )
    enough, reason = _evidence(statistics)
    return "" if enough else reason


def _evidence(statistics: LandmarkStatistics) -> tuple[bool, str]:
    """Decides whether the others tell much about a landmark that few cases do not tell, with the numbers as reason."""
    rho, kappa, variation = statistics.median_rho, statistics.median_kappa, statistics.distance_variation
    if rho is None or kappa is None:
        return False, "too few cases to tell how much the others say about a landmark"
    tells, far_apart, few = rho > LEAST_RHO, kappa > LEAST_KAPPA, statistics.n_cases < FEW_CASES
    clauses = (
        f"the others explain {percent(max(rho, 0.0))} of the variance of a landmark's position (median), {_not(tells)}more than "
        f"{percent(LEAST_RHO)}",
        f"the distance to neighbours is {number(kappa)} times the uncertainty that the others leave (median), "
        f"{_not(far_apart)}more than {number(LEAST_KAPPA)}",
        f"{statistics.n_cases} cases are {_not(few)}fewer than {FEW_CASES}",
        *([] if variation is None else [f"distances between landmarks vary by {percent(variation)} (median)"]),
    )
    return tells and far_apart and few, "; ".join(clauses)


def _not(holds: bool) -> str:
    return "" if holds else "not "


def shape_scn(
    statistics: LandmarkStatistics,
    patch: Triple,
    spacing: Sequence[float],
    network_macs: float,
    *,
    slice_axis: int | None = None,
) -> tuple[ScnPlan, dict[str, str]]:
    """The branch that landmarks would have, whether the rule asks for one or not, and the reasons for its fields.

    If it takes too much work, it gets fewer features first, then maps that are twice as coarse. For the arguments see `plan_scn`.
    """
    axes = [axis for axis in range(3) if axis != slice_axis]
    ndim, n = len(axes), len(statistics.landmarks)
    sizes, steps = [patch[axis] for axis in axes], [spacing[axis] for axis in axes]
    for widest, features in product((WIDEST[ndim], WIDEST[ndim] // 2), _halves(FEATURES[ndim], LEAST_FEATURES)):
        factor = _factors(sizes, steps, widest)
        coarse = [size // f for size, f in zip(sizes, factor)]
        extent = [min(statistics.extent_mm[a] / (s * f), c) for a, s, f, c in zip(axes, steps, factor, coarse)]
        reach = ceil(max(extent))
        kernel = next((k for k in range(3, LARGEST_KERNEL[ndim] + 1, 2) if _receptive_field(k) >= reach), None)
        form: ScnForm = "unet" if kernel is None else "convolutions"
        scn = ScnPlan(form, factor, kernel or 3, HIDDEN_LAYERS, features, "gate")
        if scn_macs(scn, n, sizes) <= MOST_WORK * network_macs:
            break
    field, largest = _receptive_field(scn.kernel), LARGEST_KERNEL[ndim]
    kernel_reason = f"{HIDDEN_LAYERS + 1} convolutions of {scn.kernel} see {field} coarse voxels, landmarks spread over {reach}"
    too_small = f"convolutions of {largest} would see {_receptive_field(largest)} coarse voxels, too few for"
    return scn, {
        "form": "convolutions over the maps of all landmarks" if kernel else f"{too_small} {reach}: a small U-Net does it",
        "factor": f"coarse maps of {size(coarse)} voxels",
        "kernel": kernel_reason if kernel else "small, since the U-Net sees far",
        "layers": f"{HIDDEN_LAYERS} (Payer et al. 2019)",
        "features": f"{features} channels take {billions(scn_macs(scn, n, sizes))} multiply-accumulates beside the "
        f"{billions(network_macs)} of the network",
        "combine": "a gate is open or shut and has no slope, so that it rules places out and does not shift what it lets through",
    }


def _halves(largest: int, least: int) -> list[int]:
    """`largest`, half of it, and so on down to `least`."""
    return [largest >> i for i in range((largest // least).bit_length())]


def _receptive_field(kernel: int) -> int:
    """Coarse voxels along an axis that the branch's convolutions see."""
    return (HIDDEN_LAYERS + 1) * (kernel - 1) + 1


def _factors(sizes: Sequence[int], spacing: Sequence[float], widest: int) -> tuple[int, ...]:
    """Powers of two that leave voxels of about the same edge in mm, `widest` of them or fewer along the longest axis.

    Each divides its axis: where one would not, all are halved.
    """
    edge_mm = max(n * s for n, s in zip(sizes, spacing)) / widest
    while True:
        factors = tuple(2 ** max(0, ceil(log2(edge_mm / s) - 1e-9)) if n > 1 else 1 for n, s in zip(sizes, spacing))
        if all(n % f == 0 for n, f in zip(sizes, factors)):
            return factors
        edge_mm /= 2
