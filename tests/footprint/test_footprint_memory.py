"""Memory and disk: counted beside what autograd keeps, and measured beside whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.limits import HANGS

from autoseg.footprint import NetworkIO, predicting_memory, prepared_bytes, preparing_memory, training_memory
from autoseg.footprint.speed import cpu_has_bf16
from autoseg.nets import UNet
from autoseg.plan import Compute, DeviceKind, NetworkPlan

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_footprint.py"


def unet(kind: str = "plain_unet", ndim: int = 3, decoder_blocks: int = 1) -> NetworkPlan:
    return NetworkPlan(
        kind=kind,
        features=(8, 16, 32),
        strides=((1,) * ndim, (2,) * ndim, (2,) * ndim),
        kernel_sizes=((3,) * ndim,) * 3,
        encoder_blocks=(2, 2, 2),
        decoder_blocks=(decoder_blocks,) * 2,
        deep_supervision=True,
    )


def kept(network: NetworkPlan, patch: tuple[int, ...], channels: int, classes: int, compute: Compute) -> int:
    """Bytes that autograd keeps of two samples, each storage once, weights left out, up to the logits."""
    module = UNet(network, channels, classes)
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    image = torch.zeros(2, channels, *patch)
    storages: dict[int, tuple[int, torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights | {image.untyped_storage().data_ptr()} and tensor.ndim == image.ndim:
            storages[storage.data_ptr()] = storage.nbytes(), tensor  # the tensor is held, so that its address stays its own
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=compute == "bfloat16"),
    ):
        module(image)
    large = [size for size, tensor in storages.values() if len(tensor) == 2]  # maps; the rest are weights in bfloat16
    return sum(large)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "ndim"), list(product(("plain_unet", "residual_unet"), (2, 3))))
@pytest.mark.parametrize("decoder_blocks", [1, 2])
def test_maps_are_those_that_autograd_keeps(kind: str, ndim: int, compute: Compute, decoder_blocks: int) -> None:
    network, patch = unet(kind, ndim, decoder_blocks), (16, 24, 32)[-ndim:]
    estimate = training_memory(network, patch, NetworkIO(3, 5), batch_size=2, compute=compute, device="cpu")
    assert estimate.maps == pytest.approx(kept(network, patch, 3, 5, compute), rel=0.05)


def test_weights_images_and_total_by_hand() -> None:
    network = replace(unet(), deep_supervision=False)
    module = UNet(network, 2, 3)
    weights, voxels = sum(p.numel() for p in module.parameters()), 4 * 16 * 24 * 32
    single = training_memory(network, (16, 24, 32), NetworkIO(2, 3), batch_size=4, compute="float32", device="cpu")
    assert single.weights == 20 * weights
    assert single.batches == 5 * voxels * (2 * 4 + 8)
    assert single.loss == voxels * (3 * (8 + 4) + 32)
    assert single.workspace == voxels * 4 * (2 * (16 + 8) - 2 * 8 + 3)  # the first convolution of the last stage, and the logits
    rest = single.weights + single.maps + single.workspace + single.batches
    assert single.total == single.base + single.slack * rest
    half = training_memory(network, (16, 24, 32), NetworkIO(2, 3), batch_size=4, compute="bfloat16", device="cpu")
    assert half.weights == 22 * weights
    assert half.maps == single.maps / 2 + voxels * 2 * 2  # a copy of the image, too
    assert half.workspace == voxels * 2 * (3 * (16 + 8) - 2 * 8 + 3)


def test_many_classes_make_the_loss_the_largest_part() -> None:
    few, many = (
        training_memory(unet(), (32, 32, 32), NetworkIO(1, n), batch_size=2, compute="bfloat16", device="cpu") for n in (3, 60)
    )
    assert few.loss < few.workspace
    assert many.loss > many.workspace
    assert many.total - few.total > 2 * 32**3 * 57 * 8


def test_a_gpu_keeps_the_same_maps() -> None:
    devices: tuple[DeviceKind, ...] = ("cpu", "cuda")
    cpu, gpu = (
        training_memory(unet(), (32, 32, 32), NetworkIO(1, 3), batch_size=2, compute="float16", device=device)
        for device in devices
    )
    assert gpu.maps == cpu.maps
    assert gpu.batches == cpu.batches / 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measured with glibc; the peak's unit is Linux's")
@pytest.mark.parametrize(
    ("name", "compute"), [("small", "float32"), ("residual", "bfloat16"), ("many classes", "bfloat16"), ("heavy", "float32")]
)
def test_within_a_fifth_of_what_training_takes(name: str, compute: Compute) -> None:
    if compute == "bfloat16" and not cpu_has_bf16():
        pytest.skip("this processor has no bf16 instructions, and would take minutes to do without")
    sys.path.insert(0, str(BENCHMARK.parent))
    try:
        from _made_up_job import TRAININGS
    finally:
        sys.path.remove(str(BENCHMARK.parent))
    command = [sys.executable, str(BENCHMARK), "--one", "training", name, compute, "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])["gb"]
    assert TRAININGS[name].gigabytes(compute, "cpu") == pytest.approx(measured, rel=0.2)


def test_disk_of_noise_is_the_estimate(tmp_path: Path) -> None:
    """Three cases of noise with two structures; real images take less (benchmarks/results/footprint.md)."""
    from autoseg.imaging.geometry import AxisMap, Box, Grid
    from autoseg.preprocessing.placement import Placement, Prepared
    from autoseg.preprocessing.store import write_case

    shape, rng = (40, 50, 60), np.random.default_rng(0)
    grid = Grid.from_spacing(shape, (1.0, 1.0, 1.0))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)
    label = np.zeros(shape, dtype=np.uint8)
    label[10:20, 10:30, 10:30], label[20:30, 10:30, 10:30] = 1, 2
    for i in range(3):
        image = rng.standard_normal((2, *shape), dtype=np.float32).astype(np.float16)
        write_case(tmp_path, f"case {i}", Prepared(image, label, placement), "key")
    written = sum(f.stat().st_size for f in tmp_path.iterdir())
    assert prepared_bytes(3, shape, n_channels=2, n_structures=2) == pytest.approx(written, rel=0.25)


def test_preparing_memory_by_hand() -> None:
    def case_bytes(source: float, target: float, n_channels: int, has_label: bool, workers: int = 1) -> float:
        base = preparing_memory(0, 0, n_channels=1, has_label=False, workers=1)
        return preparing_memory(source, target, n_channels=n_channels, has_label=has_label, workers=workers) - base

    assert case_bytes(1000, 1000, 2, True) == 8000 + 1000 + 16000 + 1000  # image, labels, normalised twice, mask
    assert case_bytes(1000, 3000, 1, False) == 4000 + 4000 + 12000 + 2 * 12000  # file, normalised, result, working
    assert case_bytes(1000, 3000, 1, True) == 4000 + 1000 + 12000 + 33000  # labels take most
    assert case_bytes(1000, 3000, 1, True, workers=4) == 4 * (4000 + 1000 + 12000 + 33000)


def test_predicting_holds_the_logits_of_the_whole_case() -> None:
    patch_size = (16, 24, 32)
    patch = prod(patch_size)

    def predicting(n_classes: int, voxels: float) -> float:
        io = NetworkIO(1, n_classes)
        return predicting_memory(
            unet(), patch_size, io, batch_size=2, compute="float32", source_voxels=voxels, target_voxels=voxels
        )

    small, large = (predicting(3, n * patch) for n in (10, 20))
    more = predicting(4, 20 * patch)
    assert large - small == pytest.approx(10 * patch * (4 + 2 + 8 + 12 + 4 + 13))  # with the case that is prepared meanwhile
    assert more - large > 20 * patch * 4
    assert predicting(3, patch / 2) < small  # padded to a window
