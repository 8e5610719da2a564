"""A training run under way: its parts, new or from what an interrupted run has left, and every change of them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import median

import torch

from autoseg.errors import PlanError, UsageError
from autoseg.inference.model import Model
from autoseg.inference.shape_prior import ShapePrior
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.nets.weights import AVERAGED, load_weights
from autoseg.plan import Configuration, Plan, TrainingPlan, load_plan, save_plan
from autoseg.plan.plugin_names import check_plugins, remember_plugins, require_plugins
from autoseg.plan.text import plan_differences
from autoseg.runs.abandoned import forget_abandoned
from autoseg.runs.budget import RunBudget, check_deterministic, planned_budget
from autoseg.runs.history import Epoch
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import Pretrained, TrainingOptions
from autoseg.runs.plugins import PLUGINS, keep_plugins
from autoseg.runs.record import is_finished, load_run
from autoseg.system.files import remove_leftovers
from autoseg.system.progress import Ticker, duration, log
from autoseg.training.checkpoint import load_state, load_training, save_training
from autoseg.training.compilation import Forward, compiled, is_worth_compiling
from autoseg.training.distributed import barrier, is_first, local_batch_size, log_shares
from autoseg.training.optimizers import make_optimizer
from autoseg.training.pretrained import take_weights
from autoseg.training.state import State, Transfer
from autoseg.training.stopping import Stopping
from autoseg.training.tensorboard import TensorBoardWriter

Clock = Callable[[], float]


@dataclass
class TrainingRun:
    """Networks, optimizer and state of a run, and every change of them but a step's of the weights.

    Args:
        model: the averaged weights.
        forward: the network, or what it has been compiled to.
        clock: seconds; whatever a run measures or decides by time, it reads here.
        start_time: on the clock, when this process began with the run; compiling counts.
        save_time: on the clock, when the run was last saved.
        case_seconds: time that an interim validation takes per case; 0 before the first one.
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
    tensorboard: TensorBoardWriter
    clock: Clock
    start_time: float
    save_time: float
    case_seconds: float = 0.0
    sometimes_absent: tuple[str, ...] = ()
    ticker: Ticker = field(default_factory=Ticker)

    @property
    def elapsed(self) -> float:
        """Seconds of training, in all processes that took part in the run one after another."""
        return self.state.elapsed + self.clock() - self.start_time

    @property
    def step_s(self) -> float:
        """Median seconds of a step in the epochs since this process began with the run.

        Earlier ones may be another machine's. 0 where there are none, or where they were compiled: a
        plan does not count on that.
        """
        if self.forward is not self.network:
            return 0.0
        seconds = [row.step_seconds for row in self.state.history if row.seconds > self.state.elapsed]
        return median(seconds) if seconds else 0.0

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
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
        """Number of epochs of the present budget that ended before the last row of the curve.

        Not the number of rows: some may be of another budget, or of an epoch that was broken off.
        """
        rows = self.state.budget_rows
        progress = self._progress_at(rows[-1].step, rows[-1].seconds) if rows else 0.0
        # progress falls back a little when the final validation turns out to need less time than was kept for it
        return int(progress * self.budget.n_epochs + 0.1)

    def _progress_at(self, step: int, elapsed: float) -> float:
        start, per_epoch = self.state.budget_start, self.configuration.training.steps_per_epoch
        return self.budget.progress(step - start.step, per_epoch, elapsed - start.seconds, self.state.reserve)

    def count_step(self, loss: float) -> None:
        self.state = self.state.after_step(loss)

    def add_epoch(self, row: Epoch) -> None:
        self.state = self.state.after_epoch(row)

    def set_interim_cases(self, n_cases: int) -> None:
        """Keep the number of cases that are scored at the end of each epoch."""
        self.state = replace(self.state, n_interim_cases=n_cases)

    def set_reserve(self, seconds: float) -> None:
        """Keep time for the final validation."""
        self.state = replace(self.state, reserve=seconds)

    def set_case_seconds(self, seconds: float) -> None:
        self.case_seconds = seconds

    def set_landmarks(self, shape_prior: ShapePrior, sometimes_absent: tuple[str, ...]) -> None:
        """Keep what training cases tell of the landmarks: where they lie to each other, and which of them some cases lack."""
        self.model, self.sometimes_absent = replace(self.model, shape_prior=shape_prior), sometimes_absent

    def roll_back_to_saved(self) -> None:
        """Restore weights, optimizer, loss scale and step from last.safetensors; counts as a rollback, saves.

        Elapsed time is not reset.
        """
        with self.stopping.shielded():
            load_training(self._last, self.network, self.model.networks[0], self.optimizer)
            saved = load_state(self._last)
            self.scaler = make_scaler(self.model.device, saved)
            self.state = self.state.rolled_back_to(saved)
            self.save()

    def roll_back_to_best_weights(self) -> None:
        """Restore the averaged weights of best.safetensors, reset the optimizer; counts as a rollback, saves.

        Steps and curve go on.
        """
        with self.stopping.shielded():
            for network in (self.network, self.model.networks[0]):
                load_weights(self.job.run / "best.safetensors", network, AVERAGED)
            self.optimizer.state.clear()
            self.state = self.state.rolled_back()
            self.save()

    def save(self) -> None:
        """Write last.safetensors; in the first process only."""
        if not is_first():
            return
        scale, steps = float(self.scaler.get_scale()), int(self.scaler.state_dict().get("_growth_tracker", 0))
        state = self.state.at_save(self.elapsed, scale, steps)
        save_training(self._last, self.network, self.model.networks[0], self.optimizer, state)
        self.save_time = self.clock()

    @property
    def _last(self) -> Path:
        return self.job.run / "last.safetensors"


def begin_or_resume(job: TrainingJob, options: TrainingOptions, device: Device, *, clock: Clock = time.monotonic) -> TrainingRun:
    """Begin a new run, or take up the one in the job's folder.

    Raises:
        PlanError: the run in the folder follows another plan.
        UsageError: a run to extend that is not finished, or to continue that began with other weights; a
            deterministic run that is limited by time; or more processes than patches in a batch.
    """
    start_time = clock()
    _, configuration = job.plan.configuration(job.configuration)
    require_plugins(configuration, job.run / "plan.json")
    log_shares(configuration.patch.batch_size)
    torch.manual_seed(options.seed)
    network = build_network(job.plan, configuration, device)
    last = job.run / "last.safetensors"
    if is_first():
        remove_leftovers(job.run)
    continues = last.is_file() and _continues(job, load_state(last), options)
    if continues:
        state = load_state(last)
    else:
        wish = options.pretrained
        transfer = take_weights(network, wish, job.plan.data, configuration.landmarks) if wish else None
        state = State.new(planned_budget(configuration.training), options.seed, transfer)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = _optimizer(network, configuration.training, state.transfer)
    if continues:
        load_training(last, network, averaged, optimizer)
        log.warning("continuing at step %d, %s into the run", state.step, duration(state.elapsed))
        if options.seed != state.seed:
            log.warning(
                "note: with the seed %d, which it began with, not %d; --restart (Python: restart=True) begins anew",
                state.seed,
                options.seed,
            )
    if options.extend:
        state = _extended(state, job, options.budget)
    budget = options.budget or state.budget
    if options.deterministic:
        check_deterministic(budget)
        torch.set_num_threads(state.threads or torch.get_num_threads())
    state = state.begun(budget, options.patience, torch.get_num_threads())
    forward: Forward = network
    if _wants_compiling(options, configuration, device, state):
        forward = compiled(network, _example(job.plan, configuration, device), device)
    barrier()  # all have read what the first will write over
    if is_first():
        keep_plugins(job.run, configuration)
        save_plan(_remembering(job), job.run / "plan.json")
        forget_abandoned(job.run)
    return TrainingRun(
        job=job,
        options=options,
        configuration=configuration,
        budget=budget,
        model=Model((averaged,), job.plan, configuration, device),
        network=network,
        forward=forward,
        optimizer=optimizer,
        scaler=make_scaler(device, state),
        state=state,
        stopping=Stopping(job.run, follows=not is_first(), clock=clock),
        tensorboard=TensorBoardWriter(job.run, options.tensorboard and is_first(), state.step),
        clock=clock,
        start_time=start_time,
        save_time=clock(),
    )


def make_scaler(device: Device, state: State) -> torch.amp.GradScaler:
    """The loss scaler, at the scale of a state; it does nothing where the device needs none."""
    scaler = torch.amp.GradScaler(device.torch_device.type, init_scale=state.loss_scale, enabled=device.needs_scaler)
    if scaler.is_enabled():
        scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": state.scale_steps})
    return scaler


def _wants_compiling(options: TrainingOptions, configuration: Configuration, device: Device, state: State) -> bool:
    if options.compiled is not None or options.deterministic:
        return bool(options.compiled)
    return is_worth_compiling(device, *state.unspent(configuration.training.steps_per_epoch))


def _example(plan: Plan, configuration: Configuration, device: Device) -> torch.Tensor:
    """Zeros in the shape of this process's batches."""
    patch, channels = configuration.patch, len(plan.data.channels) + (configuration.previous_stage is not None)
    return torch.zeros(local_batch_size(patch.batch_size), channels, *patch.patch_size, device=device.torch_device)


def _extended(state: State, job: TrainingJob, budget: RunBudget | None) -> State:
    """The state from which `--extend` starts, or resumes."""
    if state.step and is_finished(job.run):
        return state.extended()
    if state.budget_start.step and budget == state.budget:
        return state
    raise UsageError(
        "only a finished run can be extended",
        file=job.run,
        found=f"a run that was interrupted at step {state.step}" if state.step else "nothing trained",
        fix="train without --extend first",
    )


def unspent(job: TrainingJob, state: State) -> str | None:
    """The rest of the budget of a run that has ended early, as `--extend` takes it: '140s' or, of epochs, '7'."""
    per_epoch = job.plan.configuration(job.configuration)[1].training.steps_per_epoch
    seconds, steps = state.unspent(per_epoch)
    if whole := round(seconds):
        return f"{whole}s"
    return str(ceil(steps / per_epoch)) if steps else None


def plan_changes(before: Plan, now: Plan, configuration: str) -> tuple[str, ...]:
    """Differences of two plans in the data and the configuration, which training follows: 'key old → new'."""
    keys = ("data.", f"configurations.{configuration}.")
    old, new = (replace(p, configurations={configuration: p.configuration(configuration)[1].decisions}) for p in (before, now))
    differences = {key: pair for key, pair in plan_differences(old, new).items() if key.startswith(keys)}
    if not differences:  # what `plan_differences` does not tell apart
        return tuple(part for part in ("data", "configurations") if getattr(old, part) != getattr(new, part))
    return tuple(f"{key.removeprefix(keys[1])} {a.value} → {b.value}" for key, (a, b) in differences.items())


def _optimizer(network: torch.nn.Module, plan: TrainingPlan, transfer: Transfer | None) -> torch.optim.Optimizer:
    """The plan's optimizer, with weights from another model frozen or at a lower rate."""
    taken = transfer.taken if transfer else ()
    if transfer and transfer.frozen:
        for name, weight in network.named_parameters():
            weight.requires_grad_(name not in taken)
    return make_optimizer(network, plan, taken)


def _continues(job: TrainingJob, state: State, options: TrainingOptions) -> bool:
    """True for a run in the job's folder to take up; one without a step that does not fit is no obstacle, and begins anew.

    Raises:
        PlanError, UsageError: the run does not fit.
    """
    try:
        _check_plan(job)
        _check_plugins(job)
        _check_weights(state.transfer, options.pretrained, job)
    except (PlanError, UsageError):
        if state.step or (state.transfer and not options.pretrained):  # its weights would be forgotten without a word
            raise
        return False
    return True


def _check_weights(begun: Transfer | None, asked: Pretrained | None, job: TrainingJob) -> None:
    if asked and (begun is None or (begun.model, begun.frozen) != (str(asked.model.resolve()), asked.freeze)):
        raise UsageError(
            "the run in this folder has begun with other weights",
            file=job.run,
            found=begun or "new weights",
            fix="leave out --pretrained and --freeze to continue it, or add --restart",
        )


def _remembering(job: TrainingJob) -> Plan:
    """The plan, with what its configuration uses of plugins."""
    configuration = remember_plugins(job.plan.configurations[job.configuration])
    return replace(job.plan, configurations={**job.plan.configurations, job.configuration: configuration})


def _check_plugins(job: TrainingJob) -> None:
    """Refuse to go on with a loss, a block or an augmentation that is not the one of the steps before."""
    trained = load_plan(job.run / "plan.json").configuration(job.configuration)[1]
    records = load_run(job.run).plugins if (job.run / "run.json").is_file() else ()
    check_plugins(trained, job.run, copies=job.run / PLUGINS, records=records, otherwise=", or --restart to train anew")


def _check_plan(job: TrainingJob) -> None:
    changes = plan_changes(load_plan(job.run / "plan.json"), job.plan, job.configuration)
    if changes:
        raise PlanError(
            "the run in this folder follows another plan",
            file=job.run,
            found="; ".join(changes[:5]) + (f"; {len(changes) - 5} more" if len(changes) > 5 else ""),
            fix="add --restart (Python: restart=True) to train with the present plan, put the old plan back, or leave out --set",
        )
