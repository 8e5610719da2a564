"""Which component rules are tried on the validation cases."""

from __future__ import annotations

from dataclasses import replace

from autoseg.fingerprint.dataset import Fingerprint
from autoseg.plan import POSTPROCESS_RULES, Configuration
from autoseg.planner.budget import Budget


def plan_postprocess(configuration: Configuration, fingerprint: Fingerprint, budget: Budget) -> Configuration:
    """All component rules, as far as there are label maps to clean up."""
    labelled = bool(fingerprint.labels.names)
    reason = (
        "tried on the validation cases, kept where the Dice rises (nnU-Net)"
        if labelled
        else "there are no label maps to clean up"
    )
    return replace(
        configuration, postprocess=POSTPROCESS_RULES if labelled else (), why={**configuration.why, "postprocess": reason}
    )
