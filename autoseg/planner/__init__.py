"""From a fingerprint and a budget to a plan: nnU-Net's published rules (Isensee et al., Nature Methods 2021) in closed form.

No network is built and no image is read, so planning takes milliseconds.
"""

from __future__ import annotations

from autoseg import __version__
from autoseg.fingerprint import Fingerprint
from autoseg.plan import SCHEMA_VERSION, Configuration, DataPlan, Origin, PatchPlan, Plan, SpacePlan
from autoseg.planner.architecture import plan_architecture
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.normalization import plan_channel
from autoseg.planner.processor import Budget
from autoseg.planner.spacing import median_shape, target_spacing
from autoseg.planner.training import FOREGROUND_FRACTION, plan_inference, plan_postprocess, plan_training

__all__ = ["Budget", "make_plan"]


def make_plan(fingerprint: Fingerprint, budget: Budget) -> Plan:
    """Decides everything about a dataset. Configuration `3d_fullres`, or `2d` where every case is a single slice.

    On 'cuda' patch, batch, network, spacing and normalisation are those of nnU-Net's default planner. On 'cpu' the network
    has half the features, and patch and batch are limited by the time of a step; `why` says so.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    spacing, spacing_reason = target_spacing(fingerprint.cases)
    shape = median_shape(fingerprint.cases, spacing)
    flat = all(case.shape[0] == 1 for case in fingerprint.cases)
    ndim = 2 if flat else 3
    mirrored, mirror_reason = mirror_axes(fingerprint.labels, ndim, budget.device)
    training, training_reasons = plan_training(mirrored)
    inference, inference_reasons = plan_inference(mirrored)
    postprocess, postprocess_reasons = plan_postprocess()
    chosen = plan_architecture(fingerprint, budget, spacing[-ndim:], shape[-ndim:])
    configuration = Configuration(
        space=SpacePlan("LPS", spacing[-ndim:], "nonzero", image_order=3, label_order=1),
        patch=PatchPlan(chosen.topology.patch_size, chosen.batch_size, FOREGROUND_FRACTION),
        network=chosen.network,
        training=training,
        inference=inference,
        postprocess=postprocess,
        why={
            "space.orientation": "canonical axes, so that left and right mean the same in every case",
            "space.spacing_mm": spacing_reason,
            "space.crop": f"leaves {100 * fingerprint.median_relative_size:.0f} % of the voxels (median)",
            "space.image_order": "cubic interpolation keeps edges sharp (nnU-Net)",
            "space.label_order": "linear interpolation of each structure, the largest wins: smooth borders (nnU-Net)",
            **chosen.reasons,
            "training.mirror_axes": mirror_reason,
            **training_reasons,
            **inference_reasons,
            **postprocess_reasons,
        },
    )
    channels = [plan_channel(fingerprint, i) for i in range(len(fingerprint.channels))]
    return Plan(
        schema_version=SCHEMA_VERSION,
        name=fingerprint.dataset,
        task="segmentation",
        data=DataPlan(tuple(plan for plan, _ in channels), fingerprint.labels, fingerprint.unseen_structures),
        configurations={"2d" if flat else "3d_fullres": configuration},
        origin=Origin(fingerprint.hash, float(budget.memory_gb), budget.device, __version__),
        why={f"data.channels[{i}].normalization": reason for i, (_, reason) in enumerate(channels)},
    )
