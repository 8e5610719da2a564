"""Training of one fold, or of several in turn: the loop over epochs, and the validation at its end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from autoseg.dataset import Case
from autoseg.errors import DataError, ResourceError, UsageError
from autoseg.imaging.landmarks import State
from autoseg.inference.shape_prior import fit_shape_prior
from autoseg.nets.device import Device, out_of_memory
from autoseg.plan import load_plan
from autoseg.preprocessing.store import StoredCase, stored_key
from autoseg.runs.budget import check_deterministic, planned_budget
from autoseg.runs.history import Epoch, epochs_without_gain
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord, is_finished, load_run
from autoseg.runs.training_cases import save_training_cases
from autoseg.system.allocator import keep_freed_memory
from autoseg.system.files import remove_folder, write_text
from autoseg.system.lock import folder_lock
from autoseg.system.machine import peak_ram_gb
from autoseg.system.progress import duration, log, number_of
from autoseg.system.records import to_json
from autoseg.training.checkpoint import load_state
from autoseg.training.determinism import deterministic
from autoseg.training.distributed import (
    barrier,
    broadcast_bool,
    broadcast_float,
    broadcast_score,
    check_shares,
    is_first,
    rank,
    world_size,
)
from autoseg.training.interim_record import interim_record
from autoseg.training.interim_validation import interim_score, set_first_reserve, validation_time
from autoseg.training.loader import Loader
from autoseg.training.memory_check import check_memory
from autoseg.training.pace import PaceCheck
from autoseg.training.reporting import report_epoch, report_step, scores_text
from autoseg.training.rollback import NotFinite, roll_back_to_last
from autoseg.training.run import Clock, TrainingRun, begin_or_resume, plan_changes, unspent
from autoseg.training.sampling import PatchSampler
from autoseg.training.step import step
from autoseg.training.validation import CaseScores, validate

SAVE_EVERY = 120.0  # seconds of work that a crash may cost


@dataclass(frozen=True)
class FoldResult:
    """The outcome of training a fold.

    Args:
        skipped: the fold was finished already, so that nothing was trained.
        told_to_stop: the user stopped it while it was trained or, too late to end it earlier, validated.
    """

    job: TrainingJob
    record: RunRecord
    skipped: bool = False
    told_to_stop: bool = False


def train(job: TrainingJob, options: TrainingOptions, device: Device, *, clock: Clock = time.monotonic) -> RunRecord:
    """Train one fold and validate it on whole cases.

    Continues an interrupted run, skips a finished one unless it is extended. When the user stops it (see
    `stopping`), the model is validated and recorded as usual. When the user stops it twice, it saves its
    state and leaves with KeyboardInterrupt; the same call continues.

    Writes below `job.run`: last.safetensors and best.safetensors, metrics.csv, progress.png, plan.json, run.json (from the
    first epoch on), training_cases.json, shape_prior.npy where there are landmarks, and the predicted validation cases.

    Args:
        clock: seconds; whatever the run measures or decides by time, it reads here.

    Raises:
        DataError: no prepared case to train on; or a loss that is not finite (names the cases), or a
            network that predicts background only or landmarks anywhere, after `rollback.MAX_ROLLBACKS`.
        PlanError: the interrupted run in the folder follows another plan.
        ResourceError: not enough memory for a step, or not enough time for the first one.
        UsageError: the run to extend is not finished, the run to continue began with other weights, or
            another process is training it.
    """
    return _fold(job, options, device, clock).record


def check_new_run(job: TrainingJob, options: TrainingOptions, device: Device) -> None:
    """Raise whatever a new run would raise at its start, before `--restart` moves the old run aside.

    Raises:
        ResourceError, UsageError: see `train`.
    """
    _, configuration = job.plan.configuration(job.configuration)
    check_memory(job.plan, job.configuration, device)
    check_shares(configuration.patch.batch_size)
    if options.deterministic:
        check_deterministic(options.budget or planned_budget(configuration.training))


def train_folds(jobs: Sequence[TrainingJob], options: TrainingOptions, device: Device) -> Iterator[FoldResult]:
    """Train several folds one after another, each with the whole budget; end after a fold that the user has stopped.

    Raises:
        UsageError: several folds to extend. Repeated after an interruption, that would extend the first
            ones twice.
    """
    if options.extend and len(jobs) > 1:
        raise UsageError(
            "only one fold at a time can be extended", found=", ".join(job.fold for job in jobs), fix="-f with one of them"
        )
    for i, job in enumerate(jobs):
        if len(jobs) > 1:
            log.info("fold %s, %d of %d; the budget is for each", job.fold, i + 1, len(jobs))
        result = _fold(job, options, device)
        yield result
        if result.told_to_stop and i + 1 < len(jobs):
            log.warning("not trained: fold %s; the same command trains the rest", ", ".join(job.fold for job in jobs[i + 1 :]))
            return


def _fold(job: TrainingJob, options: TrainingOptions, device: Device, clock: Clock = time.monotonic) -> FoldResult:
    if is_finished(job.run) and not options.extend:
        return FoldResult(job, _skipped(job, options.seed), skipped=True)
    lock = folder_lock(job.run, wait=False) if is_first() else nullcontext()
    with lock, deterministic(options.deterministic):
        return _train(job, options, device, clock)


def _train(job: TrainingJob, options: TrainingOptions, device: Device, clock: Clock) -> FoldResult:
    if job.plan.origin.device == "cuda" and device.torch_device.type == "cpu":
        log.warning(
            "note: the plan is for a GPU, its steps take long on a CPU: autoseg plan_and_preprocess --replan --device cpu"
        )
    check_memory(job.plan, job.configuration, device)
    keep_freed_memory()
    run = begin_or_resume(job, options, device, clock=clock)
    training, validation = _stored(job, job.training), _stored(job, job.validation)
    if not training:
        raise DataError("no prepared case to train on", file=job.prepared, fix="autoseg preprocess")
    if job.plan.data.landmarks.names:
        shape_prior = fit_shape_prior(training, run.configuration.space)
        run.set_landmarks(shape_prior, _sometimes_absent(job.plan.data.landmarks.names, (*training, *validation)))
        if is_first():
            shape_prior.save(job.run)
    log.info(
        "%s, %s, fold %s: %s to train on, %d to validate on, %s, %.1f M weights, budget %s",
        job.dataset,
        job.configuration,
        job.fold,
        number_of(len(training), "case"),
        len(validation),
        device,
        sum(p.numel() for p in run.network.parameters()) / 1e6,
        (duration(run.budget.seconds) if run.budget.seconds else number_of(run.budget.epochs or 0, "epoch"))
        + (" more" if options.extend else ""),
    )
    if is_first():
        save_training_cases(job.run, (case for case in job.training if stored_key(job.prepared, case.name) is not None))
    if is_first() and is_finished(job.run):
        run.save()
        write_text(job.run / "run.json", to_json(replace(load_run(job.run), finished=False)))
    try:
        with run.stopping:
            with out_of_memory("a plan for less memory: autoseg plan_and_preprocess --replan --memory GB"):
                stopped = _learn(run, training, validation)
            if run.state.step == 0:
                raise _no_step(run)
            if is_first():
                _finish(run, validation, stopped)
            barrier()  # here, where a signal ends no process before the first one is done
            told_to_stop = broadcast_bool(run.stopping.is_requested(final=True))
        return FoldResult(job, load_run(job.run), told_to_stop=told_to_stop)
    except KeyboardInterrupt:
        log.warning("stopped; the same command continues at step %d", run.state.step)
        raise
    except Exception:
        if is_first() and run.state.step == 0:  # nothing has been learnt, and the next command may set something else
            shutil.rmtree(job.run, ignore_errors=True)
        raise
    finally:
        run.ticker.clear()
        run.tensorboard.close()


def _skipped(job: TrainingJob, seed: int) -> RunRecord:
    """The record of a finished run, after a note on why nothing is trained."""
    record, run_plan = load_run(job.run), load_plan(job.run / "plan.json")
    other_plan, last = plan_changes(run_plan, job.plan, job.configuration), job.run / "last.safetensors"
    differences = ["another plan than the present one"] if other_plan else []
    further = "--extend trains it further"
    if last.is_file():
        state = load_state(last)
        if state.seed != seed:
            differences.append(f"the seed {state.seed}, not {seed}")
        if record.stopped and (rest := unspent(job, state)):
            further = f"--extend {rest} trains it for the rest of its budget"
    log.warning(
        "%s is already trained (%s%s)%s; %s",
        job.run,
        scores_text(job, record.case_dice, record.mre),
        f"; ended early: {record.stopped}" if record.stopped else "",
        f", but with {' and '.join(differences)}" if differences else "",
        "--restart (Python: restart=True) trains it anew" if other_plan else f"{further}, --restart (Python: restart=True) anew",
    )
    return record


def _stored(job: TrainingJob, cases: Sequence[Case]) -> list[StoredCase]:
    return [
        StoredCase.open(job.prepared, c.name, job.previous_stage) for c in cases if stored_key(job.prepared, c.name) is not None
    ]


def _no_step(run: TrainingRun) -> ResourceError:
    """Error for a budget that was spent before the first step, so that there is no model."""
    spent = f"{duration(run.elapsed)} for the start" if run.budget.seconds else "a budget of no step"
    return ResourceError("no step was trained", file=run.job.run, found=spent, fix="more --time; the start takes a part of it")


def _sometimes_absent(names: Sequence[str], cases: Sequence[StoredCase]) -> tuple[str, ...]:
    """Those of the landmarks that some cases lack."""
    return tuple(name for i, name in enumerate(names) if any(c.state[i] == State.ABSENT for c in cases))


def _learn(run: TrainingRun, training: list[StoredCase], validation: list[StoredCase]) -> str | None:
    """Train epochs until the budget is spent.

    Returns:
        The reason if training ended before the budget was spent.
    """
    set_first_reserve(run)
    if is_first() and run.progress() < 1:  # label maps in there were predicted with other weights
        remove_folder(run.job.run / "validation")
    try:
        if run.state.step == 0:  # so that there is a way back, and a full disk is known before hours of work
            run.save()
        pace = PaceCheck()
        with Loader(_sampler(run, training), run.state.step, run.options.threads) as loader:
            while broadcast_float(run.progress()) < 1:
                stale = epochs_without_gain(run.state.budget_rows)
                if run.state.patience and stale >= run.state.patience:
                    what = "better case Dice" if run.job.plan.data.labels.names else "smaller error of landmarks"
                    log.warning("no %s in %d epochs: validating", what, stale)
                    return f"no {what} in {stale} epochs"
                if _epoch(run, loader, training, validation, pace=pace):
                    return run.stopping.reason or "the first process was told to stop"
    except KeyboardInterrupt:
        if not run.options.deterministic:
            run.save()
        raise
    run.save()
    return None


def _epoch(
    run: TrainingRun, loader: Loader, training: list[StoredCase], validation: list[StoredCase], *, pace: PaceCheck
) -> bool:
    """Train to the end of an epoch, or of the budget; report, score and save.

    A deterministic run is saved at the ends of epochs only: the step that a rollback goes back to must not
    depend on when the run was interrupted, or on a clock.

    Returns:
        Whether the user has stopped the run.
    """
    start_time, waited, steps = run.clock(), loader.waited, 0
    while (progress := broadcast_float(run.progress())) < 1:
        try:
            step(run, loader, progress)
        except NotFinite as error:
            roll_back_to_last(run, error)
            loader.rewind(_sampler(run, training), run.state.step)
            continue
        steps += 1
        pace.after_step(run)
        if is_first():
            report_step(run, run.clock() - start_time, steps)
        stopped = broadcast_bool(run.stopping.is_requested() and run.progress() < 1)
        if not stopped and not broadcast_bool(run.epoch_is_over()):
            if run.clock() - run.save_time > SAVE_EVERY and not run.options.deterministic:
                run.save()
            continue
        seconds = run.clock() - start_time
        scores = (
            interim_score(run, validation, seconds, steps) if is_first() and not stopped else CaseScores(None, None, "stopped")
        )
        row = Epoch(
            epoch=len(run.state.history) + 1,
            step=run.state.step,
            seconds=run.elapsed,
            learning_rate=run.optimizer.param_groups[0]["lr"] / run.optimizer.param_groups[0]["scale"],
            train_loss=run.state.mean_loss,
            case_dice=broadcast_score(scores.dice),
            step_seconds=seconds / steps,
            data_wait=(loader.waited - waited) / seconds,
            peak_ram_gb=peak_ram_gb(),
            case_mre=broadcast_score(scores.mre),
        )
        if report_epoch(run, row, scores.reason):
            loader.rewind(_sampler(run, training), run.state.step)
        return stopped
    return False


def _sampler(run: TrainingRun, training: list[StoredCase]) -> PatchSampler:
    """The sampler of a run; it draws other batches after each rollback, since the batch may have been at fault."""
    seed, torch_device = run.state.seed + 1000003 * run.state.rollbacks, run.model.device.torch_device
    data = run.job.plan.data
    return PatchSampler(
        training,
        run.configuration,
        data.labels,
        seed,
        torch_device if torch_device.type == "cuda" else None,
        (rank(), world_size()),
        data.landmarks,
    )


def _finish(run: TrainingRun, validation: list[StoredCase], stopped: str | None) -> None:
    """Validate on the prepared cases and write run.json."""
    job, prepared = run.job, {case.name for case in validation}
    case_seconds, seconds = validation_time(run, stopped is not None)
    cases = [c for c in job.validation if c.name in prepared]
    candidates = () if job.fold == "all" else run.configuration.postprocess  # on training cases no rule could prove itself
    result = validate(
        run.model,
        cases,
        job.run,
        prepared=job.prepared,
        previous_stage=job.previous_stage,
        candidates=candidates,
        lacking=run.sometimes_absent,
        seconds=seconds,
        case_seconds=case_seconds,
        clock=run.clock,
    )
    share = "" if result.n_cases == len(cases) else f"{result.n_cases} of "
    record = replace(
        interim_record(run),
        finished=True,
        validated_on="the training cases" if job.fold == "all" else f"{share}{number_of(len(cases), 'case')} not trained on",
        case_dice=result.case_dice,
        structure_dice=result.structure_dice,
        postprocess=result.rules,
        stopped=stopped,
        mre=result.mre,
        landmark_mre=result.landmark_mre,
        missed=result.missed,
        extra=result.extra,
        thresholds=result.thresholds,
    )
    write_text(job.run / "run.json", to_json(record))
