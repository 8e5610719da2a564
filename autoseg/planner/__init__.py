"""From a fingerprint and a budget to a plan: nnU-Net's published rules (Isensee et al., Nature Methods 2021) in closed form.

No network is built and no image is read, so planning takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from autoseg import __version__
from autoseg.fingerprint import Fingerprint
from autoseg.plan import SCHEMA_VERSION, Configuration, DataPlan, Origin, PatchPlan, Plan, SpacePlan
from autoseg.planner.architecture import Architecture, architecture_reasons, plan_architecture
from autoseg.planner.family import FAMILIES
from autoseg.planner.lowres import plan_lowres
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.normalization import plan_channel
from autoseg.planner.processor import Budget
from autoseg.planner.sample import WIDTHS, Sample
from autoseg.planner.spacing import median_shape, target_spacing
from autoseg.planner.training import DEFAULT_RECIPE, FOREGROUND_FRACTION, plan_inference, plan_postprocess, plan_training

__all__ = ["Budget", "make_plan"]


def make_plan(fingerprint: Fingerprint, budget: Budget, recipe: str = DEFAULT_RECIPE) -> Plan:
    """Decides everything about a dataset.

    Configurations: `3d_fullres`, then `3d_lowres` where a patch covers little of a case; `2d` alone where every case is a
    single slice. On 'cuda' patch, batch, network, spacing and normalisation are those of nnU-Net's planners. On 'cpu' the
    network has half the features, and patch and batch are limited by the time of a step; `why` says so.

    Args:
        recipe: how the networks learn, of `planner.training.RECIPES`.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    spacing_3d, spacing_reason = target_spacing(fingerprint.cases)
    shape_3d = median_shape(fingerprint.cases, spacing_3d)
    flat = all(case.shape[0] == 1 for case in fingerprint.cases)
    ndim, n_cases = 2 if flat else 3, len(fingerprint.cases)
    spacing, shape = spacing_3d[-ndim:], shape_3d[-ndim:]
    sample = Sample(len(fingerprint.channels), fingerprint.labels.n_classes, WIDTHS[budget.device], FAMILIES[budget.family])
    chosen = plan_architecture(sample, budget, spacing, shape, prod(shape) * n_cases)

    def configuration(chosen: Architecture, spacing: Sequence[float], reason: str, shape: Sequence[float]) -> Configuration:
        why = {"space.spacing_mm": reason, **architecture_reasons(chosen, sample, budget, shape)}
        return _configuration(fingerprint, budget, chosen, sample, tuple(spacing), why, recipe)

    configurations = {"2d" if flat else "3d_fullres": configuration(chosen, spacing, spacing_reason, shape)}
    lowres = None if flat else plan_lowres(sample, budget, spacing, shape, chosen, n_cases)
    if lowres:
        configurations["3d_lowres"] = configuration(lowres.architecture, lowres.spacing, lowres.reason, lowres.shape)
    channels = [plan_channel(fingerprint, i) for i in range(len(fingerprint.channels))]
    return Plan(
        schema_version=SCHEMA_VERSION,
        name=fingerprint.dataset,
        task="segmentation",
        data=DataPlan(tuple(plan for plan, _ in channels), fingerprint.labels, fingerprint.unseen_structures),
        configurations=configurations,
        origin=Origin(fingerprint.hash, float(budget.memory_gb), budget.device, __version__, budget.family),
        why={f"data.channels[{i}].normalization": reason for i, (_, reason) in enumerate(channels)},
    )


def _configuration(
    fingerprint: Fingerprint,
    budget: Budget,
    chosen: Architecture,
    sample: Sample,
    spacing: tuple[float, ...],
    why: dict[str, str],
    recipe: str,
) -> Configuration:
    """With what does not depend on resolution and patch; `why` has the reasons for those."""
    mirrored, mirror_reason = mirror_axes(fingerprint.labels, len(spacing), budget.device)
    training, training_reasons = plan_training(mirrored, len(spacing), recipe)
    inference, inference_reasons = plan_inference(mirrored)
    postprocess, postprocess_reasons = plan_postprocess()
    return Configuration(
        space=SpacePlan("LPS", spacing, "nonzero", image_order=3, label_order=1),
        patch=PatchPlan(chosen.topology.patch_size, chosen.batch_size, FOREGROUND_FRACTION),
        network=sample.network(chosen.topology),
        training=training,
        inference=inference,
        postprocess=postprocess,
        why={
            "space.orientation": "canonical axes, so that left and right mean the same in every case",
            "space.spacing_mm": why["space.spacing_mm"],
            "space.crop": f"leaves {100 * fingerprint.median_relative_size:.0f} % of the voxels (median)",
            "space.image_order": "cubic interpolation keeps edges sharp (nnU-Net)",
            "space.label_order": "linear interpolation of each structure, the largest wins: smooth borders (nnU-Net)",
            **why,
            "training.mirror_axes": mirror_reason,
            **training_reasons,
            **inference_reasons,
            **postprocess_reasons,
        },
    )
