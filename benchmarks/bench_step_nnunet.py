"""A training step beside nnU-Net's: same network, patch, batch, recipe and patches.

    python benchmarks/bench_step_nnunet.py DATASET [--device cpu] [--steps 40] [--seeds 3]
        [--out benchmarks/results/step_nnunet.md]

DATASET is Decathlon's Task04; nnU-Net 2 must be installed in the same environment. The plan is that
of nnU-Net's default planner for a GPU with 8 GB and batch 9, which follows from the 260 cases of
the whole task; the recipe is `sgd_poly`. Each side is a process of its own, as its users have it
(autoseg keeps freed memory, see `autoseg.system.allocator`). All learn from the same augmented
patches, made beforehand, in turns of one step each, so that whatever else the machine does concerns
all. nnU-Net's side is its own network, loss and optimizer settings, with the label maps of the
coarse levels made beforehand, as its loaders do; on a GPU it is compiled and computes in float16
with a loss scale, which are its defaults there, and autoseg is measured compiled and not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from autoseg.cli import SPINS

os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # as the command line does

import torch
from _report import machine, require_nnunet, write_report
from _training import plan_and_prepare
from torch import Tensor

from autoseg.nets import UNet
from autoseg.nets.device import Device, choose_device
from autoseg.pipeline.plan import PlanOptions
from autoseg.plan import Configuration, Plan
from autoseg.preprocessing.store import StoredCase
from autoseg.system.allocator import keep_freed_memory
from autoseg.training.compilation import compiled
from autoseg.training.losses import LOSSES, deep_supervision, nearest_resize
from autoseg.training.optimizers import make_optimizer
from autoseg.training.sampling import Batch, PatchSampler
from autoseg.training.schedule import learning_rate_factor
from autoseg.training.step import GRADIENT_NORM

BATCH = 9
THEIRS, COMPILED = "nnU-Net", ", compiled"


@dataclass(frozen=True)
class Sample:
    """A batch, and its label map at all levels, as nnU-Net's loaders hand it over."""

    batch: Batch
    targets: list[Tensor]


Step = Callable[[Sample, float], float]  # with a learning rate, to a loss


def ours(plan: Plan, c: Configuration, device: Device, seed: int, fused: bool) -> Step:
    keep_freed_memory()
    torch.manual_seed(seed)
    network = UNet(c.network, len(plan.data.channels), plan.data.labels.n_classes).to(device.torch_device)
    optimizer = make_optimizer(network, c.training)
    image = torch.zeros(c.patch.batch_size, len(plan.data.channels), *c.patch.patch_size, device=device.torch_device)
    forward = compiled(network, image, device) if fused else network
    if fused and forward is network:
        raise RuntimeError("the network cannot be compiled here, see above")
    learning = Learning(network, optimizer, torch.amp.GradScaler(device.torch_device.type, enabled=device.needs_scaler))

    def step(sample: Sample, rate: float) -> float:
        image, label = (x.to(device.torch_device, non_blocking=True) for x in (sample.batch.image, sample.batch.label))
        with device.autocast():
            outputs = forward(image).logits
        loss = deep_supervision(outputs, label, plan.data.labels.ignore_index, LOSSES[c.training.loss], c.training.batch_dice)
        return learning.finish(loss, rate)

    return step


def theirs(plan: Plan, c: Configuration, device: Device, seed: int) -> Step:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    torch.manual_seed(seed)
    network = PlainConvUNet(
        input_channels=len(plan.data.channels),
        n_stages=len(c.network.features),
        features_per_stage=list(c.network.features),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[list(k) for k in c.network.kernel_sizes],
        strides=[list(s) for s in c.network.strides],
        n_conv_per_stage=list(c.network.encoder_blocks),
        num_classes=plan.data.labels.n_classes,
        n_conv_per_stage_decoder=list(c.network.decoder_blocks),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    network.apply(InitWeights_He(1e-2))
    network.to(device.torch_device)
    forward = torch.compile(network) if device.torch_device.type == "cuda" else network
    dice = {"batch_dice": c.training.batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    levels = len(c.network.features) - 1
    weights = [0.5**i for i in range(levels - 1)] + [0.0]
    supervised = DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    for group in optimizer.param_groups:
        group["scale"] = 1.0
    learning = Learning(network, optimizer, torch.amp.GradScaler(device.torch_device.type, enabled=device.needs_scaler))

    def step(sample: Sample, rate: float) -> float:
        image = sample.batch.image.to(device.torch_device, non_blocking=True)
        targets = [target.to(device.torch_device, non_blocking=True) for target in sample.targets]
        with device.autocast():
            loss = supervised(forward(image), targets)
        return learning.finish(loss, rate)

    return step


@dataclass(frozen=True)
class Learning:
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def finish(self, loss: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())


def prepared(dataset: Path, root: Path, steps: int) -> tuple[Plan, Configuration, list[Sample]]:
    planned = plan_and_prepare(dataset, root, PlanOptions("cuda", 8, recipe="sgd_poly"))
    plan, job = planned.plan, planned.job("0")
    c = plan.configuration(None)[1]
    c = replace(c, training=replace(c.training, mirror_axes=()), patch=replace(c.patch, batch_size=BATCH))
    sampler = PatchSampler([StoredCase.open(job.prepared, x.name) for x in job.training], c, plan.data.labels, 0)
    sizes = [tuple(n // 2**level for n in c.patch.patch_size) for level in range(len(c.network.features) - 1)]
    samples = []
    for i in range(steps):
        batch = sampler.batch(i)
        samples.append(Sample(batch, [nearest_resize(batch.label, size).unsqueeze(1).short() for size in sizes]))
    return plan, c, samples


def side(name: str, plan: Plan, c: Configuration, device: Device, samples: list[Sample], seed: int, turn: Connection) -> None:
    """A process: one step each time it is told to, answered with its seconds and its loss."""
    torch.backends.cudnn.benchmark = True  # as both do
    step = theirs(plan, c, device, seed) if name == THEIRS else ours(plan, c, device, seed, COMPILED in name)
    for i, sample in enumerate(samples):
        turn.recv()
        began = time.perf_counter()
        loss = step(sample, c.training.learning_rate * learning_rate_factor(c.training.schedule, i / len(samples), 0.0))
        if device.torch_device.type == "cuda":
            torch.cuda.synchronize()
        turn.send((time.perf_counter() - began, loss))


@dataclass(frozen=True)
class Curve:
    seconds: list[float]
    losses: list[float]


def sides(kind: str) -> dict[str, Device]:
    chosen = choose_device(kind)
    name = f"autoseg, {str(chosen.compute).removeprefix('torch.')}"
    if kind == "cuda":
        return {THEIRS: Device(chosen.torch_device, torch.float16), name: chosen, name + COMPILED: chosen}
    float32 = Device(chosen.torch_device, torch.float32)
    return {THEIRS: float32, "autoseg, float32": float32, name: chosen}


def take_turns(plan: Plan, c: Configuration, kind: str, samples: list[Sample], seed: int) -> dict[str, Curve]:
    start = multiprocessing.get_context("spawn")
    devices = sides(kind)
    ends = {name: start.Pipe() for name in devices}
    processes = [
        start.Process(target=side, args=(name, plan, c, device, samples, seed, ends[name][1])) for name, device in devices.items()
    ]
    for process in processes:
        process.start()
    curves = {name: Curve([], []) for name in devices}
    for i in range(len(samples)):
        for name, curve in curves.items():
            ends[name][0].send(i)
            seconds, loss = ends[name][0].recv()
            curve.seconds.append(seconds)
            curve.losses.append(loss)
        print(seed, i, {name: f"{v.seconds[-1]:.3f} s, loss {v.losses[-1]:.3f}" for name, v in curves.items()}, flush=True)
    for process in processes:
        process.join()
    return curves


def bench(dataset: Path, kind: str, steps: int, seeds: int) -> tuple[list[str], str]:
    """Table, and notes on the network."""
    with tempfile.TemporaryDirectory() as root:
        plan, c, samples = prepared(dataset, Path(root), steps)
    runs = [take_turns(plan, c, kind, samples, seed) for seed in range(seeds)]
    quarter = max(1, steps // 4)
    spans = ", ".join(f"{q * quarter + 1}–{(q + 1) * quarter}" for q in range(4))
    lines = [
        f"| | s a step (median) | ratio | loss, mean of steps {spans} | lowest and highest of {seeds} seeds in the last |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    middle = {name: statistics.median(s for run in runs for s in run[name].seconds[2:]) for name in runs[0]}
    for name, seconds in middle.items():
        parts = [[statistics.mean(run[name].losses[q * quarter : (q + 1) * quarter]) for run in runs] for q in range(4)]
        curve = ", ".join(f"{statistics.mean(part):.3f}" for part in parts)
        spread = f"{min(parts[-1]):.3f} to {max(parts[-1]):.3f}"
        lines.append(f"| {name} | {seconds:.3f} | {middle[THEIRS] / seconds:.2f}× | {curve} | {spread} |")
    patch = "×".join(map(str, c.patch.patch_size))
    features = ", ".join(map(str, c.network.features))
    return lines, f"Patch {patch}, batch {c.patch.batch_size}, features {features}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    require_nnunet()
    dataset = options.dataset.resolve()
    table, notes = bench(dataset, options.device, options.steps, options.seeds)
    command = f"bench_step_nnunet.py {dataset.name} --device {options.device} --steps {options.steps} --seeds {options.seeds}"
    versions = machine("torch", "nnunetv2", device=options.device)
    write_report("A training step beside nnU-Net's", command, versions, table, notes=notes, out=options.out)


if __name__ == "__main__":
    main()
