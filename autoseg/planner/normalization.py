"""The normalisation of a channel, by its name (nnU-Net), and by its outliers where it has no absolute units."""

from __future__ import annotations

from statistics import median

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.plan import ChannelPlan, Normalization
from autoseg.planner.wording import number, percent

BY_NAME: dict[str, Normalization] = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale_0_1", "rgb_to_0_1": "rgb_0_1"}
NONZERO_BELOW = 0.75  # median share of voxels that the crop leaves; below it zeros are taken for 'no image here' (nnU-Net)

# A hundredth of the voxels then holds more than a third of the variance. Among 200 hippocampus MR, mouse brains, brains with
# tumours, micro-CT, microscopy and others no dataset has a median below 0.94 and no case is below 0.91: see
# benchmarks/results/normalization.md.
ROBUST_BELOW = 0.8
CUT_BELOW = 0.1  # share of a structure's voxels that may be outliers; above, the outliers are what is looked for


def plan_channel(fingerprint: Fingerprint, index: int) -> tuple[ChannelPlan, str]:
    """Makes the channel's entry in the plan, with the reason for its normalisation."""
    name, intensity = fingerprint.channels[index], fingerprint.intensities[index]
    normalization = BY_NAME.get(name.lower())
    if normalization == "ct" and not (intensity.std > 0 and intensity.percentile_00_5 < intensity.percentile_99_5):
        normalization = "zscore"
        reason = f"{_whose(fingerprint)} have a single intensity, so each case is scaled by its own mean and standard deviation"
    elif normalization == "ct":
        reason = (
            f"CT has absolute units: clipped to what 99 % of {_whose(fingerprint)} show, {number(intensity.percentile_00_5)} to "
            f"{number(intensity.percentile_99_5)}, then scaled by their mean and standard deviation"
        )
    elif normalization:
        reason = f"asked for by the channel's name '{name}'"
    else:
        share = fingerprint.median_relative_size
        reason = f"'{name}' has no absolute units: each case is scaled by its own mean and standard deviation; "
        if share < NONZERO_BELOW:
            normalization = "zscore_nonzero"
            reason += f"the crop to what is not 0 leaves only {percent(share)} (median): zeros are left out"
        else:
            normalization = "zscore"
            reason += f"the crop to what is not 0 leaves {percent(share)} (median): zeros belong to the image"
        robust, why = _robust(fingerprint, index, normalization == "zscore_nonzero")
        if robust:
            normalization = "zscore_nonzero_robust" if normalization == "zscore_nonzero" else "zscore_robust"
        reason += why
    plan = ChannelPlan(
        name=name,
        normalization=normalization,
        mean=intensity.mean,
        std=intensity.std,
        percentile_00_5=intensity.percentile_00_5,
        percentile_99_5=intensity.percentile_99_5,
    )
    return plan, reason


def _whose(fingerprint: Fingerprint) -> str:
    """The voxels that intensity statistics are of."""
    return "the structures' voxels" if fingerprint.labels.names else "the voxels near landmarks"


def _robust(fingerprint: Fingerprint, index: int, nonzero: bool) -> tuple[bool, str]:
    """Decides whether outliers dominate a channel and must not count, with the reason; none where no tails were measured."""
    tails = [case.tails[index] for case in fingerprint.cases if case.tails]
    if not tails:
        return False, ""
    ratio = median(t.tail_ratio_nonzero if nonzero else t.tail_ratio for t in tails)
    cut = median(t.cut_share for t in tails)
    kept = f"clipped to its percentiles 0.5 and 99.5 a case would keep {percent(ratio)} of its standard deviation (median)"
    if ratio >= ROBUST_BELOW:
        return False, f"; {kept}: no outliers dominate"
    if cut >= CUT_BELOW:
        region = "a structure" if fingerprint.labels.names else "what is near landmarks"
        return False, f"; {kept}, but up to {percent(cut)} of {region} would be cut: bright voxels are what is looked for"
    clipped = "mean and standard deviation are those of the clipped image, and outliers are cut"
    return True, f"; {kept}, less than {percent(ROBUST_BELOW)}, so a few voxels dominate: {clipped}"
