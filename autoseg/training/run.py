"""A training run under way: its moving parts, made anew or from what an interrupted one has left."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

import torch

from autoseg.errors import PlanError, UsageError
from autoseg.inference.model import Model
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.plan import Configuration, Plan, TrainingPlan, load_plan, save_plan
from autoseg.plan.text import plan_differences
from autoseg.runs.budget import RunBudget, check_deterministic, planned_budget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import Pretrained, TrainingOptions
from autoseg.runs.record import is_finished
from autoseg.system.files import remove_leftovers
from autoseg.system.progress import Ticker, duration, log
from autoseg.training.checkpoint import Beginning, State, Transfer, load_state, load_training, save_training
from autoseg.training.compilation import Forward, compiled, is_worth_compiling
from autoseg.training.distributed import barrier, is_first, local_batch_size, log_shares
from autoseg.training.optimizers import make_optimizer
from autoseg.training.pretrained import take_weights
from autoseg.training.stopping import Stopping
from autoseg.training.tensorboard import TensorBoardWriter


@dataclass
class TrainingRun:
    """Networks, optimizer and state of a run.

    Args:
        model: the averaged weights.
        forward: the network, or what it has been compiled to.
        began: when, on the monotonic clock, this process began with the run; compiling counts.
        case_seconds: what a case took when it was last scored along the way; 0 before the first time.
    """

    job: TrainingJob
    options: TrainingOptions
    configuration: Configuration
    budget: RunBudget
    model: Model
    network: torch.nn.Module
    forward: Forward
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    state: State
    stopping: Stopping
    events: TensorBoardWriter
    began: float
    saved: float = field(default_factory=lambda: time.monotonic())
    case_seconds: float = 0.0
    ticker: Ticker = field(default_factory=Ticker)

    @property
    def elapsed(self) -> float:
        return self.state.elapsed + time.monotonic() - self.began

    @property
    def step_s(self) -> float:
        """Median seconds of a step in the epochs since the run was set up; 0 where there are none, or where they were compiled,
        on which a plan does not count.

        Those before an interruption or an extension may be another machine's.
        """
        if self.forward is not self.network:
            return 0.0
        own = [row.step_seconds for row in self.state.history if row.seconds > self.state.elapsed]
        return median(own) if own else 0.0

    def progress(self) -> float:
        return self._progress_at(self.state.step, self.elapsed)

    def epoch_is_over(self) -> bool:
        # now and then a step of a 200th part adds up to a hair less than a whole epoch
        return int(self.progress() * self.budget.n_epochs + 1e-9) > self._epochs_reported

    @property
    def n_epochs(self) -> int:
        """Rows that the curve will have at the end, unless the run is told to stop."""
        return len(self.state.history) + self.budget.n_epochs - self._epochs_reported

    @property
    def _epochs_reported(self) -> int:
        """How many epochs of the present budget ended before the last row of the curve; not the number of rows, some of which may
        be of another budget, or of an epoch that was broken off."""
        rows = self.state.history[self.state.began.epochs :]
        progress = self._progress_at(rows[-1].step, rows[-1].seconds) if rows else 0.0
        # progress falls back a little when the final validation turns out to need less time than was kept for it
        return int(progress * self.budget.n_epochs + 0.1)

    def _progress_at(self, step: int, elapsed: float) -> float:
        began, per_epoch = self.state.began, self.configuration.training.steps_per_epoch
        return self.budget.progress(step - began.step, per_epoch, elapsed - began.seconds, self.state.reserve)

    def save(self) -> None:
        if not is_first():
            return
        scale, steps = float(self.scaler.get_scale()), int(self.scaler.state_dict().get("_growth_tracker", 0))
        now = replace(self.state, elapsed=self.elapsed, loss_scale=scale, scale_steps=steps)
        save_training(self.job.run / "last.safetensors", self.network, self.model.networks[0], self.optimizer, now)
        self.saved = time.monotonic()


def begin_or_resume(job: TrainingJob, options: TrainingOptions, device: Device) -> TrainingRun:
    """A new run, or the one in the job's folder.

    Raises:
        PlanError: the run in the folder follows another plan.
        UsageError: to be extended, but not finished; or begun with other weights; or a deterministic run that is limited by time;
            or more processes than patches in a batch.
    """
    began = time.monotonic()
    _, configuration = job.plan.configuration(job.configuration)
    log_shares(configuration.patch.batch_size)
    torch.manual_seed(options.seed)
    network = build_network(job.plan, configuration, device)
    planned = planned_budget(configuration.training)
    state = State(planned.seconds, planned.epochs, options.seed, 0, 0.0, 0.0, 0, None, 2.0**16, ())
    last = job.run / "last.safetensors"
    if is_first():
        remove_leftovers(job.run)
    if last.is_file():
        state = load_state(last)
        _check_plan(job)
        _check_weights(state.transfer, options.pretrained, job)
    elif options.pretrained:
        state = replace(state, transfer=take_weights(network, options.pretrained, job.plan.data, configuration.landmarks))
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = _optimizer(network, configuration.training, state.transfer)
    if last.is_file():
        load_training(last, network, averaged, optimizer)
        log.warning("continuing at step %d, %s into the run", state.step, duration(state.elapsed))
        if options.seed != state.seed:
            log.warning("note: with the seed %d, which it began with, not %d; --restart begins anew", state.seed, options.seed)
    if options.extend:
        state = _extended(state, job, options.budget)
    budget = options.budget or RunBudget(state.budget_seconds, state.budget_epochs)
    if options.deterministic:
        check_deterministic(budget)
        torch.set_num_threads(state.threads or torch.get_num_threads())
    state = replace(
        state, budget_seconds=budget.seconds, budget_epochs=budget.epochs, patience=options.patience or state.patience
    )
    state = replace(state, threads=torch.get_num_threads())
    scaler = make_scaler(device, state)
    model = Model((averaged,), job.plan, configuration, device)
    events = TensorBoardWriter(job.run, options.tensorboard and is_first(), state.step)
    forward: Forward = network
    if _wants_compiling(options, configuration, device, state):
        forward = compiled(network, _example(job.plan, configuration, device), device)
    if is_first():
        save_plan(job.plan, job.run / "plan.json")
    stopping = Stopping(job.run, follows=not is_first())
    barrier()  # all have read what the first will write over
    return TrainingRun(
        job, options, configuration, budget, model, network, forward, optimizer, scaler, state, stopping, events, began
    )


def make_scaler(device: Device, state: State) -> torch.amp.GradScaler:
    """Of the loss, at the scale that a state has come to; it does nothing where the device needs none."""
    scaler = torch.amp.GradScaler(device.torch_device.type, init_scale=state.loss_scale, enabled=device.needs_scaler)
    if scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": state.scale_steps})
    return scaler


def _wants_compiling(options: TrainingOptions, configuration: Configuration, device: Device, state: State) -> bool:
    if options.compiled is not None or options.deterministic:
        return bool(options.compiled)
    return is_worth_compiling(device, *_left(state, configuration.training.steps_per_epoch))


def _left(state: State, steps_per_epoch: int) -> tuple[float, int]:
    """Seconds and steps of its budget that a run has not spent; of the one that it is not limited by, none."""
    seconds = (state.budget_seconds or 0.0) - (state.elapsed - state.began.seconds)
    steps = (state.budget_epochs or 0) * steps_per_epoch - (state.step - state.began.step)
    return max(0.0, seconds), max(0, steps)


def _example(plan: Plan, configuration: Configuration, device: Device) -> torch.Tensor:
    """Zeros of the shape that the batches of this process have."""
    patch, channels = configuration.patch, len(plan.data.channels) + (configuration.previous_stage is not None)
    return torch.zeros(local_batch_size(patch.batch_size), channels, *patch.patch_size, device=device.torch_device)


def _extended(state: State, job: TrainingJob, budget: RunBudget | None) -> State:
    """At the beginning of an extension, or where an interrupted one has stopped."""
    if state.step and is_finished(job.run):
        return replace(state, began=Beginning(state.step, state.elapsed, len(state.history)), rollbacks=0)
    if state.began.step and budget == RunBudget(state.budget_seconds, state.budget_epochs):
        return state
    raise UsageError(
        "only a finished run can be extended",
        file=job.run,
        found=f"a run that was interrupted at step {state.step}" if state.step else "nothing trained",
        fix="train without --extend first",
    )


def unspent(job: TrainingJob, state: State) -> str | None:
    """What a run that has ended early has left of its budget, as `--extend` takes it: '140s' or, of epochs, '7'."""
    per_epoch = job.plan.configuration(job.configuration)[1].training.steps_per_epoch
    seconds, steps = _left(state, per_epoch)
    if whole := round(seconds):
        return f"{whole}s"
    return str(ceil(steps / per_epoch)) if steps else None


def plan_changes(before: Plan, now: Plan, configuration: str) -> tuple[str, ...]:
    """What two plans differ in of all that training follows, which is the data and the configuration: 'key old → new'."""
    keys = ("data.", f"configurations.{configuration}.")
    old, new = (replace(p, configurations={configuration: p.configuration(configuration)[1].decisions}) for p in (before, now))
    found = {key: pair for key, pair in plan_differences(old, new).items() if key.startswith(keys)}
    if not found:  # what `plan_differences` does not tell apart
        return tuple(part for part in ("data", "configurations") if getattr(old, part) != getattr(new, part))
    return tuple(f"{key.removeprefix(keys[1])} {a.value} → {b.value}" for key, (a, b) in found.items())


def _optimizer(network: torch.nn.Module, plan: TrainingPlan, transfer: Transfer | None) -> torch.optim.Optimizer:
    """With weights from another model frozen or at a lower rate, as asked."""
    taken = transfer.taken if transfer else ()
    if transfer and transfer.frozen:
        for name, weight in network.named_parameters():
            weight.requires_grad_(name not in taken)
    return make_optimizer(network, plan, taken)


def _check_weights(begun: Transfer | None, asked: Pretrained | None, job: TrainingJob) -> None:
    if asked and (begun is None or (begun.model, begun.frozen) != (str(asked.model.resolve()), asked.freeze)):
        raise UsageError(
            "the run in this folder has begun with other weights",
            file=job.run,
            found=begun or "new weights",
            fix="leave out --pretrained and --freeze to continue it, or add --restart",
        )


def _check_plan(job: TrainingJob) -> None:
    changes = plan_changes(load_plan(job.run / "plan.json"), job.plan, job.configuration)
    if changes:
        raise PlanError(
            "the run in this folder follows another plan",
            file=job.run,
            found="; ".join(changes[:5]) + (f"; {len(changes) - 5} more" if len(changes) > 5 else ""),
            fix="add --restart to train anew with the present plan, or put the old plan back",
        )
