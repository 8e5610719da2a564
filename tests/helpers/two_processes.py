"""What test_distributed.py looks at, in two processes that torchrun starts: `two_processes.py DATA ROOT OUT`.

Each process writes what it found as OUT/<rank>.json. No pytest here: what is changed for one scenario is changed back by hand.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from autoseg.dataset import open_dataset
from autoseg.errors import ResourceError, UsageError
from autoseg.imaging.landmarks import State
from autoseg.nets.device import Device
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.training import step as step_module
from autoseg.training import train as train_module
from autoseg.training.checkpoint import load_state
from autoseg.training.distributed import (
    all_reduce_float,
    all_reduce_gradients,
    broadcast_score,
    is_first,
    process_group,
    rank,
    world_size,
)
from autoseg.training.loader import Loader
from autoseg.training.losses import LANDMARK_LOSSES, LOSSES
from autoseg.training.run import TrainingRun
from autoseg.training.sampling import Batch, PatchSampler
from autoseg.training.train import train

CPU = Device(torch.device("cpu"), torch.float32)
EPOCHS = TrainingOptions(RunBudget(epochs=2), threads=0)  # of three steps
IGNORE = 4

Part = Callable[[slice], tuple[float, list[torch.Tensor]]]


def label_losses() -> dict[str, Part]:
    """Each loss, with and without batch Dice, of some samples out of three, and its gradient; little is known of the second."""
    torch.manual_seed(0)
    image, weights = torch.randn(3, 2, 6, 7, dtype=torch.float64), torch.randn(4, 2, 1, 1, dtype=torch.float64)
    target = torch.randint(0, 4, (3, 6, 7))
    target[1, 1:] = IGNORE
    target[2, :2] = IGNORE

    def part(name: str, batch_dice: bool) -> Part:
        def of(samples: slice) -> tuple[float, list[torch.Tensor]]:
            layer = torch.nn.Parameter(weights.clone())
            loss = LOSSES[name](torch.nn.functional.conv2d(image[samples], layer), target[samples], IGNORE, batch_dice)
            return backward(loss, layer)

        return of

    return {f"{name} {batch_dice}": part(name, batch_dice) for name in LOSSES for batch_dice in (False, True)}


def landmark_losses() -> dict[str, Part]:
    """The same of landmarks. The first process, which gets the first and the last sample, knows less than the other."""
    torch.manual_seed(0)
    image, weights = torch.randn(3, 2, 6, 7, dtype=torch.float64), torch.randn(3, 2, 1, 1, dtype=torch.float64)
    points = torch.rand(3, 3, 2, dtype=torch.float64) * 5
    state = torch.full((3, 3), int(State.UNLABELLED))
    state[0, 0] = state[1, 0] = state[1, 1] = int(State.PRESENT)
    state[1, 2] = int(State.ABSENT)

    def part(name: str) -> Part:
        def of(samples: slice) -> tuple[float, list[torch.Tensor]]:
            layer = torch.nn.Parameter(weights.clone())
            maps = torch.nn.functional.conv2d(image[samples], layer)
            return backward(LANDMARK_LOSSES[name](maps, points[samples], state[samples], (1.0, 1.0)), layer)

        return of

    return {name: part(name) for name in LANDMARK_LOSSES}


def backward(loss: torch.Tensor, layer: torch.nn.Parameter) -> tuple[float, list[torch.Tensor]]:
    """Value and gradient, each added up over the processes."""
    loss.backward()
    all_reduce_gradients([layer])
    assert layer.grad is not None
    return all_reduce_float(float(loss.detach())), [layer.grad]


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def digest(run: TrainingRun) -> str:
    """Of the weights, trained and averaged, and of what the optimizer remembers."""
    parts = [*run.network.state_dict().values(), *run.model.networks[0].state_dict().values()]
    parts += [v for p in run.network.parameters() for v in run.optimizer.state[p].values() if isinstance(v, torch.Tensor)]
    return sha256(b"".join(p.detach().numpy().tobytes() for p in parts)).hexdigest()


def watched(job: TrainingJob, before: Callable[[TrainingRun], None] = lambda _: None) -> dict[str, Any]:
    """Trains; `before` each step something happens. Returns what came of it in this process."""
    usual, drawn, seen = train_module.step, PatchSampler.batch, {}

    def step(run: TrainingRun, loader: Loader, progress: float) -> None:
        seen["run"] = run
        before(run)
        usual(run, loader, progress)

    samples: list[tuple[int, list[str]]] = []

    def batch(self: PatchSampler, number: int) -> Batch:
        made = drawn(self, number)
        samples.append((number, [sha256(image.numpy().tobytes()).hexdigest() for image in made.image]))
        return made

    with changed(train_module, "step", step), changed(PatchSampler, "batch", batch):
        record = train(job, EPOCHS, CPU)
    run: TrainingRun = seen["run"]
    return {
        "steps": record.steps,
        "stopped": record.stopped,
        "rollbacks": run.state.rollbacks,
        "history": [[row.epoch, row.step, row.train_loss, row.case_dice] for row in run.state.history],
        "weights": digest(run),
        "samples": samples,
        "averaged": [float(p.sum()) for p in run.model.networks[0].parameters()],
    }


def with_batch(job: TrainingJob, run: Path, patches: int) -> TrainingJob:
    """Trained by plain gradient descent, which does not make much of what rounding does to a gradient of nothing."""
    name, c = job.plan.configuration(None)
    edited = replace(c, patch=replace(c.patch, batch_size=patches), training=replace(c.training, optimizer="sgd"))
    return replace(job, run=run, plan=replace(job.plan, configurations={name: edited}))


def not_finite_here(run: TrainingRun, outputs: Any, batch: Batch) -> torch.Tensor:
    """The loss, except that that of the second process is NaN once, in the fifth step."""
    loss = _usual_loss(run, outputs, batch)
    return loss * float("nan") if rank() == 1 and run.state.step == 4 and not run.state.rollbacks else loss


_usual_loss = step_module.total_loss


def told_to_stop(run: TrainingRun) -> None:
    """As torchrun does, to both processes."""
    if run.state.step == 4:
        os.kill(os.getpid(), signal.SIGTERM)


def told_while_waiting() -> None:
    """The first process is still validating."""
    if not is_first():
        os.kill(os.getpid(), signal.SIGTERM)
    _usual_wait()


_usual_wait = train_module.barrier


def interrupted(run: TrainingRun) -> None:
    """At once, as by a second Ctrl-C: the first process, since the other one follows."""
    if run.state.step == 4 and is_first():
        raise KeyboardInterrupt


def main(data: Path, root: Path, out: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    job = training_job(open_dataset(data), Workspace(root), None, "0")
    losses = label_losses() | landmark_losses()
    whole = {name: part(slice(None)) for name, part in losses.items()}
    found: dict[str, Any] = {"alone": world_size()}
    with process_group(CPU.torch_device):
        found["rank"], found["world_size"] = rank(), world_size()
        found["decided"] = [broadcast_score(rank() + 0.5), broadcast_score(None if is_first() else 0.5)]
        found["losses"] = {}
        for name, part in losses.items():
            value, gradients = part(slice(rank(), None, 2))
            error = max(float((a - b).abs().max()) for a, b in zip(gradients, whole[name][1]))
            found["losses"][name] = [value, whole[name][0], error, max(float(g.abs().max()) for g in whole[name][1])]
        found["three"] = watched(with_batch(job, out / "three", 3))
        try:
            train(with_batch(job, out / "one", 1), EPOCHS, CPU)
        except UsageError as error:
            found["one"] = str(error)
        with changed(step_module, "total_loss", not_finite_here):
            found["not finite"] = watched(replace(job, run=out / "not_finite"))
        found["saved"] = load_state(out / "not_finite" / "last.safetensors").rollbacks
        with changed(train_module, "barrier", told_while_waiting):
            found["stopped"] = watched(replace(job, run=out / "stopped"), told_to_stop)
        try:
            watched(replace(job, run=out / "interrupted"), interrupted)
        except KeyboardInterrupt:
            found["interrupted"] = "KeyboardInterrupt"
        except ResourceError as error:
            found["interrupted"] = str(error)
    (out / f"{found['rank']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
    # without the destructors of gloo's threads, which abort now and then once the other process has gone
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
