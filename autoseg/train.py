"""The training loop."""

from __future__ import annotations

import copy
import hashlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from autoseg.checkpoint import State, load_state, load_training, save_training, save_weights
from autoseg.dataset import Case
from autoseg.device import Device, out_of_memory
from autoseg.errors import DataError, PlanError
from autoseg.files import write_text
from autoseg.footprint import STEP_PASSES
from autoseg.history import Epoch, write_history
from autoseg.losses import deep_supervision
from autoseg.model import Model, fresh_network
from autoseg.plan import Configuration, Plan, TrainingPlan, load_plan, save_plan
from autoseg.progress import duration, log
from autoseg.records import to_json
from autoseg.runs import RunRecord, load_run
from autoseg.sampling import Batch, Loader, PatchSampler
from autoseg.schedule import Budget, learning_rate_factor
from autoseg.store import StoredCase, stored_key
from autoseg.task import TrainTask
from autoseg.validation import case_dice, validate

GRADIENT_NORM = 12.0  # clipping, as nnU-Net
SAVE_EVERY = 120.0  # seconds of work that a crash may cost
INTERIM_SHARE = 0.05  # of the training time that case Dice along the way is meant to take; at twice that it is left out
INTERIM_FREE = 3.0  # seconds of it that need no excuse
INTERIM_CASES = 8
LAST_SECONDS = 3.0  # for writing the results
VALIDATION_SHARE = 0.25  # of a time budget at most for the final validation, so that large cases leave time to learn


@dataclass
class _Run:
    """The moving parts of a run."""

    task: TrainTask
    configuration: Configuration
    budget: Budget
    model: Model  # averaged weights
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    state: State
    began: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    case_seconds: float = 0.0  # that a case took when it was last scored along the way; 0 before the first time

    @property
    def elapsed(self) -> float:
        return self.state.elapsed + time.monotonic() - self.began

    def progress(self) -> float:
        per_epoch = self.configuration.training.steps_per_epoch
        return self.budget.progress(self.state.step, per_epoch, self.elapsed, self.state.reserve)

    def save(self) -> None:
        now = replace(self.state, elapsed=self.elapsed, loss_scale=float(self.scaler.get_scale()))
        save_training(self.task.run / "last.safetensors", self.network, self.model.networks[0], self.optimizer, now)
        self.saved = time.monotonic()


def train(task: TrainTask, budget: Budget | None, device: Device) -> RunRecord:
    """Trains one fold and validates it on whole cases; continues an interrupted run, skips a finished one.

    Writes below `task.run`: last.safetensors and best.safetensors, metrics.csv, progress.png, plan.json, run.json, and
    the predicted validation cases.

    Args:
        budget: None means that of the interrupted run, or the plan's number of epochs for a new one.

    Raises:
        DataError: no prepared case to train on, or a loss that is not finite (names the cases).
        PlanError: an interrupted run in the folder follows another plan.
        ResourceError: not enough memory for a step.
    """
    if (task.run / "run.json").is_file() and (record := load_run(task.run)).finished:
        same = _digest(load_plan(task.run / "plan.json"), task.configuration) == _digest(task.plan, task.configuration)
        how = "" if same else ", but with another plan than the present one"
        log.warning("%s is already trained (case Dice %s)%s; --restart trains it anew", task.run, _score(record.case_dice), how)
        return record
    if task.plan.origin.device == "cuda" and device.place.type == "cpu":
        log.warning(
            "note: the plan is for a GPU, its steps take long on a CPU: autoseg plan_and_preprocess --replan --device cpu"
        )
    run = _set_up(task, budget, device)
    training, validation = _stored(task, task.training), _stored(task, task.validation)
    if not training:
        raise DataError("no prepared case to train on", file=task.prepared, fix="autoseg preprocess")
    log.info(
        "%s, %s, fold %s: %d cases to train on, %d to validate on, %s, %.1f M weights, budget %s",
        task.dataset,
        task.configuration,
        task.fold,
        len(training),
        len(validation),
        device,
        sum(p.numel() for p in run.network.parameters()) / 1e6,
        duration(run.budget.seconds) if run.budget.seconds else f"{run.budget.epochs} epochs",
    )
    try:
        with out_of_memory("a plan for less memory: autoseg plan_and_preprocess --replan --memory GB"):
            _learn(run, training, validation)
    except KeyboardInterrupt:
        run.save()
        log.warning("stopped; the same command continues at step %d", run.state.step)
        raise
    run.save()
    each, most = _expected_validation(run)
    # only where the reserve was cut: an estimate that is a little short must not cost cases
    limit = most if each > most or run.state.reserve >= most else math.inf
    prepared = {case.name for case in validation}
    cases = [c for c in task.validation if c.name in prepared]
    candidates = () if task.fold == "all" else run.configuration.postprocess  # on training cases no rule could prove itself
    result = validate(run.model, cases, task.prepared, task.before, task.run, candidates, limit, each)
    share = "" if result.n_cases == len(cases) else f" of {len(cases)}"
    record = RunRecord(
        dataset=task.dataset,
        configuration=task.configuration,
        fold=task.fold,
        finished=True,
        seconds=run.elapsed,
        steps=run.state.step,
        validated_on="the training cases" if task.fold == "all" else f"{result.n_cases}{share} cases not trained on",
        case_dice=result.case_dice,
        structure_dice=result.structure_dice,
        postprocess=result.rules,
    )
    write_text(task.run / "run.json", to_json(record))
    return record


def _set_up(task: TrainTask, budget: Budget | None, device: Device) -> _Run:
    _, configuration = task.plan.configuration(task.configuration)
    digest = _digest(task.plan, task.configuration)
    torch.manual_seed(task.seed)
    network = fresh_network(task.plan, configuration, device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = _optimizer(network, configuration.training)
    state = State(digest, None, configuration.training.epochs, task.seed, 0, 0.0, 0.0, 0, -1.0, 2.0**16, ())
    last = task.run / "last.safetensors"
    if last.is_file():
        state = load_state(last)
        if state.plan != digest:
            raise PlanError(
                "the run in this folder follows another plan",
                file=task.run,
                fix="add --restart to train anew with the present plan, or put the old plan back",
            )
        load_training(last, network, averaged, optimizer)
        log.warning("continuing at step %d, %s into the run", state.step, duration(state.elapsed))
    budget = budget or Budget(state.budget_seconds, state.budget_epochs)
    state = replace(state, budget_seconds=budget.seconds, budget_epochs=budget.epochs)
    scaler = torch.amp.GradScaler(device.place.type, init_scale=state.loss_scale, enabled=device.needs_scaler)
    model = Model((averaged,), task.plan, configuration, device)
    save_plan(task.plan, task.run / "plan.json")
    return _Run(task, configuration, budget, model, network, optimizer, scaler, state)


def _digest(plan: Plan, configuration: str) -> str:
    """Of all that training follows: the data and the configuration, without the reasons."""
    chosen = plan.configuration(configuration)[1]
    return hashlib.sha256(to_json((plan.data, chosen.decisions)).encode()).hexdigest()


def _optimizer(network: torch.nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """Weight decay acts on convolution kernels only: on norms and biases it has nothing to regularise."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def _stored(task: TrainTask, cases: Sequence[Case]) -> list[StoredCase]:
    return [StoredCase.open(task.prepared, c.name, task.before) for c in cases if stored_key(task.prepared, c.name) is not None]


def _learn(run: _Run, training: list[StoredCase], validation: list[StoredCase]) -> None:
    """Steps until the budget is spent; reports, validates and saves at the end of each epoch."""
    task, budget = run.task, run.budget
    pinned = run.model.device.place.type == "cuda"
    sampler = PatchSampler(training, run.configuration, task.plan.data.labels, run.state.seed, pinned)
    run.state = replace(run.state, reserve=max(run.state.reserve, LAST_SECONDS))
    with Loader(sampler, run.state.step, task.threads) as loader:
        losses: list[float] = []
        epoch_began, waited = time.monotonic(), 0.0
        while (progress := run.progress()) < 1:
            losses.append(_step(run, loader, progress))
            run.state = replace(run.state, step=run.state.step + 1)
            # Now and then a step of a 200th part adds up to a hair less than a whole epoch; and progress may fall back a
            # little when the final validation turns out to need less time than was kept for it.
            if int(run.progress() * budget.n_epochs + 1e-9) <= len(run.state.history):
                if time.monotonic() - run.saved > SAVE_EVERY:
                    run.save()
                continue
            seconds = time.monotonic() - epoch_began
            row = Epoch(
                epoch=len(run.state.history) + 1,
                step=run.state.step,
                seconds=run.elapsed,
                learning_rate=run.optimizer.param_groups[0]["lr"],
                train_loss=float(np.mean(losses)),
                case_dice=_interim_score(run, validation, seconds, len(losses)),
                step_seconds=seconds / len(losses),
                data_wait=(loader.waited - waited) / seconds,
                peak_ram_gb=_peak_ram_gb(),
            )
            _report(run, row)
            losses, waited = [], loader.waited
            epoch_began = time.monotonic()


def _step(run: _Run, loader: Loader, progress: float) -> float:
    plan, device = run.configuration.training, run.model.device
    batch = loader.next()
    image = batch.image.to(device.place, non_blocking=True)
    label = batch.label.to(device.place, non_blocking=True)
    for group in run.optimizer.param_groups:
        group["lr"] = plan.learning_rate * learning_rate_factor(plan.schedule, progress, plan.warmup_fraction)
    with device.autocast():
        outputs = run.network(image)
    loss = deep_supervision(outputs, label, run.task.plan.data.labels.ignore_index)
    value = float(loss.detach())
    _check_finite(value, "loss", run, batch)
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), GRADIENT_NORM)
    if not run.scaler.is_enabled():  # which itself leaves out steps whose gradients overflow
        _check_finite(float(norm), "gradient", run, batch)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    # The average starts short and grows, so that it forgets the random weights of the beginning.
    decay = min(plan.ema_decay, (1 + run.state.step) / (10 + run.state.step))
    with torch.no_grad():
        averaged: list[torch.Tensor] = list(run.model.networks[0].parameters())
        torch._foreach_lerp_(averaged, list(run.network.parameters()), 1 - decay)
    return value


def _check_finite(value: float, what: str, run: _Run, batch: Batch) -> None:
    if not np.isfinite(value):
        raise DataError(
            f"the {what} is not finite",
            found=f"{value} at step {run.state.step}",
            case=", ".join(batch.cases),
            fix="look at the intensities of these cases; a lower training.learning_rate in the plan may help",
        )


def _interim_score(run: _Run, validation: list[StoredCase], epoch_seconds: float, steps: int) -> float | None:
    """Case Dice of a few validation cases: as many as 5 % of the first epoch pays for, at least one, the same ones ever after.

    None where there are no cases, or where they are so large that scoring would take a tenth of the time, or has done so
    already. What it takes also tells how much time must be kept for the final validation.

    Args:
        epoch_seconds, steps: what the epoch took, and how many steps it had.
    """
    spent = sum(row.case_dice is not None for row in run.state.history) * run.state.interim * run.case_seconds
    if not validation or spent > max(INTERIM_FREE, 2 * INTERIM_SHARE * run.elapsed):
        return None
    if not run.state.interim and run.budget.seconds is not None:
        step = epoch_seconds / steps / run.configuration.patch.batch_size
        run.case_seconds = run.model.n_windows(validation[0].shape) * step / STEP_PASSES
        if run.case_seconds > 2 * INTERIM_SHARE * run.budget.seconds:
            _keep_for_validation(run, len(validation))
            return None
    count = run.state.interim or 1
    score = _score_cases(run, validation, count)
    if not run.state.interim:
        affordable = int(INTERIM_SHARE * epoch_seconds / run.case_seconds)
        count = max(1, min(len(validation), INTERIM_CASES, affordable))
        run.state = replace(run.state, interim=count)
        score = score if count == 1 else _score_cases(run, validation, count)
    _keep_for_validation(run, len(validation))
    return score


def _keep_for_validation(run: _Run, n_cases: int) -> None:
    each, most = _expected_validation(run)
    reserve = LAST_SECONDS + (1.2 * each * n_cases if each <= most else 0)  # where not even one case fits, all goes to learning
    if run.progress() >= 1:
        reserve = max(reserve, run.state.reserve)  # a training that has ended does not begin again
    run.state = replace(run.state, reserve=min(reserve, most))


def _score_cases(run: _Run, validation: list[StoredCase], count: int) -> float | None:
    """Case Dice of `count` cases from all over the list; notes what one of them takes."""
    began = time.monotonic()
    cases = [validation[i * len(validation) // count] for i in range(count)]
    score = case_dice(run.model, cases, run.task.plan.data.labels)
    run.case_seconds = (time.monotonic() - began) / count
    return score


def _expected_validation(run: _Run) -> tuple[float, float]:
    """Seconds that a case of the final validation will take, and the most that it may take for all cases."""
    each = run.case_seconds * 2 ** len(run.configuration.inference.mirror_axes)
    return each, math.inf if run.budget.seconds is None else VALIDATION_SHARE * run.budget.seconds


def _report(run: _Run, row: Epoch) -> None:
    run.state = replace(run.state, history=(*run.state.history, row))
    better = row.case_dice is not None and row.case_dice > run.state.best
    if better:
        assert row.case_dice is not None
        run.state = replace(run.state, best=row.case_dice)
        save_weights(run.task.run / "best.safetensors", run.model.networks[0], run.state)
    run.save()
    write_history(run.task.run, run.state.history)
    left = row.seconds / max(run.progress(), 1e-9) - row.seconds
    log.info(
        "epoch %d/%d  step %d  loss %.3f  case Dice %s (%d cases)%s  lr %.1e  %.2f s/step  data wait %.0f%%  RAM %s GB  %s left",
        row.epoch,
        run.budget.n_epochs,
        row.step,
        row.train_loss,
        _score(row.case_dice),
        run.state.interim,
        " best" if better else "",
        row.learning_rate,
        row.step_seconds,
        100 * row.data_wait,
        "--" if row.peak_ram_gb is None else f"{row.peak_ram_gb:.1f}",
        duration(left),
    )


def _score(value: float | None) -> str:
    return "--" if value is None else f"{value:.3f}"


def _peak_ram_gb() -> float | None:
    """Largest resident size of this process so far; None where the operating system does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
