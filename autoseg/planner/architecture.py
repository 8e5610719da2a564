"""Patch, batch and network, chosen together: the patch decides how deep the network is, the network what it costs (nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoseg.footprint import multiply_accumulates, n_parameters
from autoseg.plan import NetworkPlan
from autoseg.planner.budget import STEPS_OF_A_PATCH, STEPS_OF_A_WIDTH, Budget
from autoseg.planner.cost import NARROW, WIDE, NetworkCost
from autoseg.planner.memory import MemoryFit, fit_memory, fits_memory
from autoseg.planner.patch import MIN_BATCH
from autoseg.planner.spacing import coarsest_first
from autoseg.planner.time_fit import TimeFit, fit_time
from autoseg.planner.topology import Topology
from autoseg.planner.wording import billions, number, numbers, size


@dataclass(frozen=True)
class Architecture:
    """Patch, batch and network of a configuration, and what they follow from. Axes in canonical order.

    Args:
        cost: of networks with the width that was chosen.
        memory_fit, time_fit: with axes in the order of planning; `time_fit` where there is a limit of time, as on a CPU.
    """

    topology: Topology
    batch_size: int
    cost: NetworkCost
    memory_fit: MemoryFit
    time_fit: TimeFit | None

    @property
    def network(self) -> NetworkPlan:
        return self.cost.network(self.topology)

    @property
    def step_gmacs(self) -> float:
        """10⁹ multiply-accumulates of a training step."""
        return self.cost.step_gmacs(self.topology, self.batch_size)


def plan_architecture(
    cost: NetworkCost, budget: Budget, spacing: Sequence[float], shape: Sequence[float], dataset_voxels: float
) -> Architecture:
    """Finds the largest patch and batch that the budget allows, for a wide network if there is time for one.

    Args:
        cost: of wide networks.
        spacing, shape: target spacing (mm) and median size (voxels) of the cases, two or three axes in canonical order.
        dataset_voxels: of all cases at that spacing.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    ndim = len(spacing)
    order = coarsest_first(spacing) if ndim == 3 else tuple(range(ndim))
    spacing, shape = tuple(spacing[a] for a in order), tuple(shape[a] for a in order)
    memory_fit = fit_memory(cost, budget, spacing, shape, dataset_voxels)
    if not _has_time_for_wide(memory_fit, cost, budget):
        cost = replace(cost, width=NARROW)
        memory_fit = fit_memory(cost, budget, spacing, shape, dataset_voxels)
    time_fit = None
    if budget.device == "cpu" or budget.time_s is not None:

        def fits(topology: Topology) -> bool:
            return fits_memory(cost, memory_fit.reference, budget.memory_gb, topology)

        time_fit = fit_time(
            memory_fit.topology, memory_fit.batch_size, cost, budget, spacing=spacing, median_shape=shape, fits=fits
        )
    fit = time_fit or memory_fit
    topology = fit.topology.ordered([order.index(a) for a in range(ndim)])
    return Architecture(topology, fit.batch_size, cost, memory_fit, time_fit)


def _has_time_for_wide(fit: MemoryFit, wide: NetworkCost, budget: Budget) -> bool:
    """True where a wide network is worth its time: on a GPU unless few steps of it fit into the time, on a CPU if many do."""
    steps = budget.steps(wide.step_gmacs(fit.topology, MIN_BATCH) / budget.speed)
    if budget.device == "cpu":
        return budget.time_s is not None and steps >= STEPS_OF_A_WIDTH
    return steps >= STEPS_OF_A_PATCH


def architecture_reasons(architecture: Architecture, budget: Budget, shape: Sequence[float]) -> dict[str, str]:
    """Reasons for patch, batch and network by dotted key; `shape` as in `plan_architecture`."""
    patch = [f"median case is {numbers(shape)} voxels", architecture.memory_fit.patch_reason]
    batch = [architecture.memory_fit.batch_reason]
    if budget.family == "residual":
        batch.append("the 5 % apply here too, unlike in nnU-Net's presets, which train small cases in batches of hundreds")
    filled_gb = architecture.memory_fit.reference.memory_gb
    if filled_gb != budget.memory_gb:
        batch.append(f"as for {number(filled_gb)} GB, which shows more voxels at once than a larger patch")
    if architecture.time_fit:
        patch += [architecture.time_fit.patch_reason] if architecture.time_fit.patch_reason else []
        batch.append(architecture.time_fit.batch_reason)
    return {
        "patch.patch_size": "; ".join(patch),
        "patch.batch_size": "; ".join(batch),
        **_network_reasons(architecture, budget),
    }


def _network_reasons(architecture: Architecture, budget: Budget) -> dict[str, str]:
    network, topology, cost = architecture.network, architecture.topology, architecture.cost
    parameters = n_parameters(network, cost.io) / 1e6
    work = multiply_accumulates(network, topology.patch_size, cost.io)
    narrow = ""
    if cost.width == NARROW:
        cause = "on a CPU" if budget.device == "cpu" else "in the time there is"
        narrow = f", half of nnU-Net's {WIDE.base} (a quarter of the work {cause})"
    tight = architecture.time_fit is not None and architecture.time_fit.tight
    fewer = ", but for the last halving, which would need padding" if tight else ""
    halved = ""
    if cost.halves_first(topology):
        halved = "; no stage is at full resolution, since positions are decoded to a fraction of a voxel: half the time a step"
    supervised = "coarse levels learn from the label map too, so that gradients reach them (nnU-Net)"
    widest = cost.width.most(len(topology.patch_size))
    bottleneck = tuple(n // d for n, d in zip(topology.patch_size, topology.divisors))
    return {
        "network.kind": _kind_reason(cost, budget),
        "network.features": f"{network.features[0]}{narrow}, doubled from stage to stage up to {widest}; "
        f"{parameters:.1f} million parameters, {billions(work)} multiply-accumulates a sample",
        "network.strides": f"an axis is halved while 4 voxels remain, fine axes before coarse ones{fewer}; "
        f"{size(bottleneck)} voxels at the bottleneck{halved}",
        "network.kernel_sizes": "3 along an axis from the stage on at which its spacing is below twice the finest, 1 before",
        **_block_reasons(cost, budget),
        "network.deep_supervision": supervised if cost.io.n_classes else "off: landmarks are learnt at the finest stage only",
    }


def _kind_reason(cost: NetworkCost, budget: Budget) -> str:
    if budget.family == "plain":
        return "nnU-Net's plain U-Net"
    presets = cost.family.presets_3d
    index = max((i for i, p in enumerate(presets) if p.memory_gb <= budget.memory_gb), default=0)
    memory = presets[index].memory_gb
    scaled = "" if memory == budget.memory_gb else f", scaled from {number(memory)} to {number(budget.memory_gb)} GB"
    return f"a residual encoder was asked for: nnU-Net's {cost.family.preset_names[index]}{scaled}"


def _block_reasons(cost: NetworkCost, budget: Budget) -> dict[str, str]:
    if budget.family == "residual":
        return {
            "network.encoder_blocks": "residual blocks of two convolutions, more of them in deep stages, where they cost least "
            "(nnU-Net's ResEnc)",
            "network.decoder_blocks": "one convolution a stage, since the finest stages cost most (nnU-Net's ResEnc)",
        }
    one = "one convolution a stage, as in nnU-Net's residual presets, since time is short and the finest stages cost most"
    return {
        "network.encoder_blocks": "two convolutions a stage (nnU-Net)",
        "network.decoder_blocks": one if cost.width == NARROW else "two convolutions a stage (nnU-Net)",
    }
