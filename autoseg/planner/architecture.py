"""Patch, batch and network. They are chosen together: the patch decides how deep the network is, the network what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from autoseg.errors import ResourceError
from autoseg.fingerprint import Fingerprint
from autoseg.footprint import conv_elements, multiply_accumulates, n_parameters
from autoseg.plan import NetworkPlan
from autoseg.planner.patch import REFERENCES, Reference, batch_cap, batch_size, initial_patch, shrink_until
from autoseg.planner.processor import WIDTHS, Budget, Sample, fit_cpu_step
from autoseg.planner.spacing import coarsest_first
from autoseg.planner.topology import Topology
from autoseg.planner.wording import billions, number, numbers, size

LARGEST = {2: "2048²", 3: "256³"}


@dataclass(frozen=True)
class Architecture:
    """What the network sees at once, the network, and the reasons by dotted key."""

    topology: Topology
    batch_size: int
    network: NetworkPlan
    reasons: dict[str, str]


def plan_architecture(
    fingerprint: Fingerprint, budget: Budget, spacing: tuple[float, ...], shape: tuple[float, ...]
) -> Architecture:
    """Finds the largest patch and batch that the budget allows.

    Args:
        spacing, shape: target spacing (mm) and median size (voxels) of the cases, two or three axes in canonical order.

    Raises:
        ResourceError: the smallest patch needs more memory than the budget has.
    """
    ndim = len(spacing)
    order = coarsest_first(spacing) if ndim == 3 else tuple(range(ndim))
    spacing, shape = tuple(spacing[a] for a in order), tuple(shape[a] for a in order)
    sample = Sample(len(fingerprint.channels), fingerprint.labels.n_classes, WIDTHS[budget.device])
    reference = REFERENCES[ndim].scaled(budget.memory_gb)

    start = initial_patch(spacing, shape)
    topology = shrink_until(lambda t: _elements(t, sample) <= reference.elements_at_smallest_batch, start, spacing, shape)
    elements = _elements(topology, sample)
    if elements > reference.elements_at_smallest_batch:
        needed = elements / REFERENCES[ndim].elements_at_smallest_batch * 8
        raise ResourceError(
            f"even a patch of {size(topology.patch_size)} voxels does not fit the memory",
            found=f"{number(budget.memory_gb)} GB",
            allowed=f"at least {number(needed)} GB",
        )
    dataset_voxels = prod(shape) * len(fingerprint.cases)
    batch = batch_size(reference, elements, topology.patch_size, dataset_voxels)
    patch_reasons = [f"median case is {numbers([shape[order.index(a)] for a in range(ndim)])} voxels"]
    patch_reasons.append(_patch_reason(start, topology, reference, elements, budget))
    batch_reasons = [_batch_reason(batch, reference, elements, batch_cap(topology.patch_size, dataset_voxels))]
    if budget.device == "cpu":
        fit = fit_cpu_step(topology, batch, sample, spacing, shape)
        topology, batch = fit.topology, fit.batch_size
        patch_reasons += [fit.patch_reason] if fit.patch_reason else []
        batch_reasons.append(fit.batch_reason)
    topology = topology.ordered([order.index(a) for a in range(ndim)])
    network = sample.network(topology)
    return Architecture(
        topology,
        batch,
        network,
        {
            "patch.patch_size": "; ".join(patch_reasons),
            "patch.batch_size": "; ".join(batch_reasons),
            "patch.foreground_fraction": "a third of the samples show a structure for certain, so none is forgotten (nnU-Net)",
            **_network_reasons(network, topology, sample, budget),
        },
    )


def _elements(topology: Topology, sample: Sample) -> int:
    return conv_elements(sample.network(topology), topology.patch_size, sample.n_channels, sample.n_classes)


def _patch_reason(start: Topology, end: Topology, reference: Reference, elements: int, budget: Budget) -> str:
    memory = (
        f"{billions(elements)} of the {billions(reference.elements_at_smallest_batch)} convolution outputs "
        f"that {number(budget.memory_gb)} GB hold for each of two samples"
    )
    if start == end:
        return f"all of it fits, up to the largest patch considered ({LARGEST[len(end.patch_size)]} voxels): {memory}"
    voxels = prod(start.patch_size) / prod(end.patch_size)
    return f"a patch {number(voxels)} times as large was shrunk along the axis that it covers most, until it took {memory}"


def _batch_reason(batch: int, reference: Reference, elements: int, cap: int) -> str:
    held = round(reference.elements / elements * reference.batch_size)
    return f"memory holds {held}, 5 % of the dataset's voxels are {cap} patches, the least is 2: {batch}"


def _network_reasons(network: NetworkPlan, topology: Topology, sample: Sample, budget: Budget) -> dict[str, str]:
    parameters = n_parameters(network, sample.n_channels, sample.n_classes) / 1e6
    work = multiply_accumulates(network, topology.patch_size, sample.n_channels, sample.n_classes)
    cpu = budget.device == "cpu"
    narrow = f", half of nnU-Net's {WIDTHS['cuda'].base} (a quarter of the work on a CPU)" if cpu else ""
    widest = sample.width.most(len(topology.patch_size))
    bottleneck = tuple(n // d for n, d in zip(topology.patch_size, topology.divisors))
    return {
        "network.kind": "nnU-Net's plain U-Net",
        "network.features": f"{network.features[0]}{narrow}, doubled from stage to stage up to {widest}; "
        f"{parameters:.1f} million parameters, {billions(work)} multiply-accumulates a sample",
        "network.strides": f"an axis is halved while 4 voxels remain, fine axes before coarse ones; {size(bottleneck)} at last",
        "network.kernel_sizes": "3 along an axis from the stage on at which its spacing is below twice the finest, 1 before",
        "network.encoder_blocks": "two convolutions a stage (nnU-Net)",
        "network.decoder_blocks": "one convolution a stage on a CPU, as in nnU-Net's residual presets: fine stages cost most"
        if cpu
        else "two convolutions a stage (nnU-Net)",
        "network.deep_supervision": "coarse levels learn from the label map too, so gradients reach them (nnU-Net)",
    }
