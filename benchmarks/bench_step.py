"""Time of a training step: an ablation of the choices that make it fast.

The precision is what autoseg chooses for the processor: bfloat16 where it has instructions for
that, else float32.

    python benchmarks/bench_step.py [--device cpu] [--repeats 3] [--out benchmarks/results/step.md]

On a CPU, the network and patch are those that the planner chooses for 208 cases of 36×50×35 voxels,
with its batch of two; on a GPU those that nnU-Net trains on the Decathlon's liver (128³ voxels, two
samples). Each figure is the minimum of three, taken in turns, each the median of 15 steps: whatever
else runs on a machine makes steps slower, never faster. On a CPU each is a process of its own,
since the allocator and libgomp are set once in a process; and the time that threads spin while they
wait for one another is varied, alone and with a busy program beside.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from _made_up_job import LIVER, TRAININGS
from _report import machine, write_report

from autoseg.cli import SPINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

BUSY = "while True: pass"
WARM_UP, STEPS = 4, 15
BASELINE = "autoseg"
FLOAT32 = "float32"
CHANNELS_FIRST = "channels first"
TRANSPOSED = "transposed convolutions"
INSTANCE_NORM = "torch's instance norm"
GROUP_NORM = "group norm of one channel a group"
ONE_HOT = "loss by autograd, one-hot label maps"
FOREACH = "AdamW foreach instead of fused"
MEMORY_RETURNED = "freed memory returned to the system"
CHANNELS_LAST = "channels last"
NO_CUDNN_BENCHMARK = "without cuDNN's benchmark mode"
COMPILED = "compiled, as with --compile"
ABLATIONS = {
    "cpu": (BASELINE, FLOAT32, CHANNELS_FIRST, TRANSPOSED, INSTANCE_NORM, GROUP_NORM, ONE_HOT, FOREACH, MEMORY_RETURNED),
    "cuda": (BASELINE, FLOAT32, CHANNELS_LAST, TRANSPOSED, GROUP_NORM, ONE_HOT, FOREACH, NO_CUDNN_BENCHMARK, COMPILED),
}
SAMPLES = {"cpu": replace(TRAININGS["small"], batch=2), "cuda": LIVER}
SPIN_LIMITS = (None, "10000", SPINS, "100")  # None: libgomp's own


def step_seconds(ablation: str, kind: str) -> float:
    """Median of the steps after those to warm up, in this process."""
    import torch

    from autoseg.nets import UNet, unet
    from autoseg.nets.device import choose_device
    from autoseg.system.allocator import keep_freed_memory
    from autoseg.training.compilation import compiled
    from autoseg.training.losses import LOSSES, deep_supervision

    if ablation != MEMORY_RETURNED:
        keep_freed_memory()
    if ablation == CHANNELS_FIRST:
        unet.channels_last = lambda x: x  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = ablation != NO_CUDNN_BENCHMARK  # as `determinism` does
    training, device = SAMPLES[kind], choose_device(kind)
    network = UNet(training.network, training.channels, training.classes)
    _exchange(network, _replacement(ablation))
    network = network.to(device.torch_device)
    image = torch.randn(training.batch, training.channels, *training.patch).to(device.torch_device)
    label = torch.randint(0, training.classes, (training.batch, *training.patch)).to(device.torch_device)
    if ablation == CHANNELS_LAST:
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        image = image.to(memory_format=torch.channels_last_3d)
    forward = compiled(network, image, device) if ablation == COMPILED else network
    if ablation == COMPILED and forward is network:
        raise RuntimeError("the network cannot be compiled here, see above")
    foreach = ablation == FOREACH
    optimizer = torch.optim.AdamW(network.parameters(), fused=not foreach, foreach=foreach)
    loss_of = _plain_dice_ce if ablation == ONE_HOT else LOSSES["dice_ce"]
    seconds = []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        with nullcontext() if ablation == FLOAT32 else device.autocast():
            outputs = forward(image).logits
        loss = deep_supervision(outputs, label, 255, loss_of)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.torch_device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return median(seconds[WARM_UP:])


def _replacement(ablation: str) -> Callable[[nn.Module], nn.Module | None]:
    """Function from a module to its replacement, or None where it stays."""
    from torch import Tensor, nn

    from autoseg.nets.blocks import InstanceNorm, Upsample

    def replacement(module: nn.Module) -> nn.Module | None:
        if isinstance(module, Upsample) and ablation == TRANSPOSED:
            z, y, x = module.stride
            weight = module.expand.weight
            assert isinstance(weight, Tensor)
            return nn.ConvTranspose3d(weight.shape[1], module.n_out, (z, y, x), (z, y, x))
        if isinstance(module, InstanceNorm) and ablation == INSTANCE_NORM:
            return nn.InstanceNorm3d(len(module.weight), affine=True)
        if isinstance(module, InstanceNorm) and ablation == GROUP_NORM:
            return nn.GroupNorm(len(module.weight), len(module.weight))
        return None

    return replacement


def _exchange(module: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    for name, child in module.named_children():
        if other := replacement(child):
            setattr(module, name, other)
        else:
            _exchange(child, replacement)


def _plain_dice_ce(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool) -> Tensor:
    """Loss of autoseg where no voxel is to be ignored, as it is usually written."""
    import torch.nn.functional as F

    p = F.softmax(logits.float(), 1)
    true = F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    axes = tuple(range(2, logits.ndim))
    dice = (2 * (p * true).sum(axes) + 1e-5) / (p.sum(axes) + true.sum(axes) + 1e-5)
    return F.cross_entropy(logits.float(), target) - dice[:, 1:].mean()


def measure(ablation: str, spin: str | None, busy: bool) -> float:
    """On a CPU, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | ({"GOMP_SPINCOUNT": spin} if spin else {})
    load = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        command = [sys.executable, __file__, "--one", ablation]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = float(done.stdout)
        print(f"{ablation}, GOMP_SPINCOUNT={spin}, busy={busy}: {seconds:.3f} s", file=sys.stderr, flush=True)
        return seconds
    finally:
        if load:
            load.kill()


def measure_gpu(ablation: str) -> float:
    import torch

    torch.cuda.empty_cache()
    seconds = step_seconds(ablation, "cuda")
    print(f"{ablation}: {seconds:.4f} s", file=sys.stderr, flush=True)
    return seconds


def choices(kind: str, compute: str, repeats: int) -> list[str]:
    ablations = [name for name in ABLATIONS[kind] if name != compute]
    one = measure_gpu if kind == "cuda" else partial(measure, spin=SPINS, busy=False)
    rounds = [[one(name) for name in ablations] for _ in range(repeats)]
    minima = [min(side) for side in zip(*rounds)]
    rows = [f"| {name} | {s:.4f} | {s / minima[0]:.2f}× |" for name, s in zip(ablations, minima)]
    return ["| | s a step | relative to autoseg |", "| --- | ---: | ---: |", *rows]


def spinning(repeats: int) -> list[str]:
    names = ("libgomp's own spinning", *(f"GOMP_SPINCOUNT={limit}" for limit in SPIN_LIMITS[1:]))
    rows = []
    for busy in (False, True):
        rounds = [[measure(BASELINE, limit, busy) for limit in SPIN_LIMITS] for _ in range(repeats)]
        figures = (f"{min(side):.3f}" for side in zip(*rounds))
        rows.append(f"| {'beside a busy program' if busy else 'alone'} | {' | '.join(figures)} |")
    return [f"| s a step | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names), *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=ABLATIONS, default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kind = options.device
    if options.one:
        print(step_seconds(options.one, "cpu"))
        return
    from autoseg.nets.device import choose_device

    compute, gmacs = str(choose_device(kind).compute).removeprefix("torch."), SAMPLES[kind].gmacs
    table = choices(kind, compute, options.repeats)
    notes = (
        f"Minimum of {options.repeats}, in {compute}; each row below the first changes one thing.\n"
        f"{gmacs:.0f}·10⁹ multiply-accumulates a step: {gmacs / float(table[2].split('|')[2]):.0f}·10⁹ a second."
    )
    if kind == "cpu":
        table += [
            "",
            f"Time that threads spin before they sleep; autoseg sets GOMP_SPINCOUNT={SPINS}:",
            "",
            *spinning(options.repeats),
        ]
    title, command = (
        f"A training step on a {'CPU' if kind == 'cpu' else 'GPU'}",
        f"bench_step.py --device {kind} --repeats {options.repeats}",
    )
    write_report(title, command, machine("torch", device=kind), table, notes=notes, out=options.out)


if __name__ == "__main__":
    main()
