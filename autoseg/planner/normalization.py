"""How the intensities of a channel are made comparable between cases, by the channel's name (nnU-Net)."""

from __future__ import annotations

from autoseg.fingerprint import Fingerprint
from autoseg.plan import ChannelPlan, Normalization
from autoseg.planner.wording import number

BY_NAME: dict[str, Normalization] = {"ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale_0_1", "rgb_to_0_1": "rgb_0_1"}
NONZERO_BELOW = 0.75  # median share of voxels that the crop leaves; below it zeros are taken for 'no image here' (nnU-Net)


def plan_channel(fingerprint: Fingerprint, index: int) -> tuple[ChannelPlan, str]:
    """The channel's entry in the plan, and the reason for its normalisation."""
    name, seen = fingerprint.channels[index], fingerprint.intensities[index]
    normalization = BY_NAME.get(name.lower())
    if normalization == "ct":
        reason = (
            "CT has absolute units: clipped to what 99 % of the structures' voxels show, "
            f"{number(seen.percentile_00_5)} to {number(seen.percentile_99_5)}, then scaled by their mean and standard deviation"
        )
    elif normalization:
        reason = f"asked for by the channel's name '{name}'"
    else:
        share = fingerprint.median_relative_size
        reason = f"'{name}' has no absolute units: each case is scaled by its own mean and standard deviation; "
        if share < NONZERO_BELOW:
            normalization = "zscore_nonzero"
            reason += f"the crop to what is not 0 leaves only {100 * share:.0f} % (median): zeros are left out"
        else:
            normalization = "zscore"
            reason += f"the crop to what is not 0 leaves {100 * share:.0f} % (median): zeros belong to the image"
    plan = ChannelPlan(
        name=name,
        normalization=normalization,
        mean=seen.mean,
        std=seen.std,
        percentile_00_5=seen.percentile_00_5,
        percentile_99_5=seen.percentile_99_5,
    )
    return plan, reason
