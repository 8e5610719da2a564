"""`autoseg train` on a workspace: prepare what is missing, train the folds, remember the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.dataset import Dataset
from autoseg.errors import UsageError, first_few
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.pipeline.cascade import cascade_of
from autoseg.pipeline.ladder import ChosenConfiguration, abandon, choose_configuration
from autoseg.pipeline.ownership import check_owner
from autoseg.pipeline.plan import note_speed
from autoseg.pipeline.plugins import note_block_costs, plan_for_run
from autoseg.pipeline.preprocess import preprocess_dataset, preprocess_previous_stage
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import LEAST_TIME_S, Plan, load_plan
from autoseg.preprocessing.dataset import prepared_key
from autoseg.preprocessing.store import stored_key
from autoseg.runs.abandoned import Abandoned
from autoseg.runs.budget import RunBudget
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import RunRecord, is_finished, record_scores
from autoseg.splits.folds import load_folds
from autoseg.system.lock import folder_lock
from autoseg.system.machine import find_gpu
from autoseg.system.progress import log, number_of
from autoseg.system.workers import FAILED, CaseReport, Failure

if TYPE_CHECKING:
    from autoseg.training.pace import OtherRung


@dataclass(frozen=True)
class TrainReport(CaseReport):
    """Result of a training; `failures` lists the cases that could not be prepared for it.

    Args:
        model: folder that `predict` takes: the run's, or of several folds the one above.
        records: of the folds that are finished, in order.
        n_untrained: folds that are not trained yet since the user stopped before them. 0 where several
            processes train together: torchrun would take them for a crash.
        n_cases: cases that the first fold trains on.
        is_cascade: whether it is the second stage of a cascade.
    """

    model: Path
    records: tuple[RunRecord, ...]
    n_untrained: int
    n_cases: int
    is_cascade: bool

    def __repr__(self) -> str:
        name = f"{self.record.dataset}, {self.record.configuration}, " if self.records else ""
        head = f"TrainReport: {name}trained on {number_of(self.n_cases, 'case')}"
        failed = [f"not prepared: {number_of(len(self.failures), 'case')}"] if self.failures else []
        return "\n  ".join([head, *map(record_scores, self.records), f"model: {self.model}", *failed])

    @property
    def stages(self) -> tuple[str, ...]:
        """First words of the stages that `failures` may name: the second one is that of a cascade."""
        return ("preprocess", "prepare") if self.is_cascade else ("preprocess",)

    @property
    def record(self) -> RunRecord:
        """That of the first fold."""
        return self.records[0]


def train_dataset(
    dataset: Dataset,
    workspace: Workspace,
    *,
    configuration: str | None = None,
    folds: Sequence[str] = ("0",),
    options: TrainingOptions | None = None,
    device: str = "auto",
    restart: bool = False,
    settings: Mapping[str, Any] | None = None,
    on_fold: Callable[[Path, RunRecord], None] | None = None,
) -> TrainReport | None:
    """Train folds of a planned dataset one after another, and validate each on whole cases.

    Prepares what is not prepared yet. Continues an interrupted run, skips a finished one unless it is
    extended. The model counts as the last one afterwards.

    Args:
        configuration: of the plan; None is the rung of its ladder for the time, or its default.
        folds: names of folds.
        restart: set earlier runs of these folds aside first.
        settings: values of the plan that are other ones for this training, by key (see `plan.settings`).
        on_fold: called after each fold with the model's folder and the fold's record.

    Returns:
        The report; None in every process but the first where several train together.

    Raises:
        UsageError: not planned yet, no such configuration or fold; see `training.train.train`.
        DataError, PlanError, ResourceError: see `training.train.train`.
    """
    options = options or TrainingOptions()
    plan = load_plan(workspace.dataset_folder(dataset.name) / "plan.json")
    kind = "cpu" if device == "cpu" or find_gpu() is None else "cuda"
    wanted = choose_configuration(
        plan, workspace.runs(dataset.name), configuration, options, folds=folds, restart=restart, device=kind
    )

    from autoseg.training.pace import OtherRung

    while True:
        try:
            return _train(
                dataset,
                workspace,
                wanted,
                folds=folds,
                options=options,
                device=device,
                restart=restart,
                settings=settings or {},
                on_fold=on_fold,
            )
        except OtherRung as other:
            wanted = _give_up(wanted.name, kind, other)
            options = replace(options, budget=RunBudget(seconds=max(LEAST_TIME_S, other.left)))


def _give_up(name: str, device: str, other: OtherRung) -> ChosenConfiguration:
    """Leaves a run in its first steps for another rung, and a note in its place."""
    instead = other.rung.configuration
    log.warning("note: %s; %s is trained instead of %s", other.reason, instead, name)
    abandon(other.run, Abandoned(other.seconds, device, other.step_s, other.reason, instead))
    return ChosenConfiguration(instead, by_time=True, instead_of=f"{name} was given up: {other.reason}")


def _train(
    dataset: Dataset,
    workspace: Workspace,
    wanted: ChosenConfiguration,
    *,
    folds: Sequence[str],
    options: TrainingOptions,
    device: str,
    restart: bool,
    settings: Mapping[str, Any],
    on_fold: Callable[[Path, RunRecord], None] | None,
) -> TrainReport | None:
    """Trains the folds of a configuration; see `train_dataset`.

    Raises:
        OtherRung: another rung of the plan's ladder should be trained instead.
    """
    plan = partial(plan_for_run, workspace, dataset.name, wanted.name, settings=settings, restart=restart, extend=options.extend)
    plans = [plan(fold) for fold in folds]
    note_block_costs(plans[0].configurations)

    from autoseg.nets.device import choose_device
    from autoseg.training.distributed import barrier, is_first, local_device, process_group, world_size
    from autoseg.training.tensorboard import check_tensorboard
    from autoseg.training.train import check_new_run, train_folds

    if options.tensorboard:
        check_tensorboard()
    failures: tuple[Failure, ...] = ()
    chosen = choose_device(local_device(device))
    records: list[RunRecord] = []
    with process_group(chosen.torch_device):
        if is_first():  # takes no time if nothing has changed or been deleted
            failures = _prepare(dataset, workspace, wanted.name, workers=0 if options.threads == 0 else None)
        barrier()
        jobs = [_job(dataset, workspace, wanted, fold, plan=p, by_time=fold == folds[0]) for fold, p in zip(folds, plans)]
        model = jobs[0].run if len(jobs) == 1 else jobs[0].run.parent  # all folds together
        if restart:
            check_new_run(jobs[0], options, chosen)
        needed = options.pretrained.model if options.pretrained else None
        aside = set_runs_aside([job.run for job in jobs], needed) if restart and is_first() else ()  # nothing above costs a run
        barrier()
        with _put_back_after_failure(aside):
            _remember_if_first(workspace, model)
            for fold in train_folds(jobs, options, chosen):
                records.append(fold.record)
                if not is_first():
                    continue
                workspace.remember_model(model)
                if not fold.skipped and world_size() == 1:  # else another plan or machine may be behind it, or several GPUs
                    note_speed(workspace, fold.job.plan, fold.job.configuration, chosen.torch_device.type, fold.record.step_s)
                if on_fold:
                    on_fold(model, fold.record)
        n_untrained = len(jobs) - len(records) if world_size() == 1 else 0
        report = TrainReport(
            model, tuple(records), n_untrained, len(jobs[0].training), jobs[0].previous_stage is not None, failures=failures
        )
        return report if is_first() else None


def _job(
    dataset: Dataset, workspace: Workspace, wanted: ChosenConfiguration, fold: str, *, plan: Plan, by_time: bool
) -> TrainingJob:
    """`training_job` with the plan of its run; folds after the first follow it, whatever the time."""
    job = training_job(dataset, workspace, wanted.name, fold)
    return replace(job, plan=plan, by_time=wanted.by_time and by_time, instead_of=wanted.instead_of)


def _remember_if_first(workspace: Workspace, model: Path) -> None:
    """Let a training be the last model from its start where there is no other: its best weights so far can predict."""
    from autoseg.training.distributed import is_first

    if is_first() and not workspace.has_model():
        workspace.remember_model(model)


def _note_unusable_cases(dataset: Dataset, workspace: Workspace) -> None:
    """Tell how many cases are not trained on since the fingerprint could not take them in."""
    folder = workspace.dataset_folder(dataset.name)
    usable = {case.name for case in load_fingerprint(folder / "fingerprint.json").cases}
    faulty = [case.name for case in dataset.cases if case.name not in usable]
    if faulty:
        failed = folder / FAILED
        reason = f"could not be prepared: see {failed}" if failed.is_file() else "are not in the fingerprint: autoseg fingerprint"
        log.warning("note: not trained on: %s; %d of %d cases %s", first_few(faulty), len(faulty), len(dataset.cases), reason)


def _prepare(dataset: Dataset, workspace: Workspace, configuration: str | None, *, workers: int | None) -> tuple[Failure, ...]:
    """Prepare the cases and, for the second stage of a cascade, what the first one predicted for them."""
    report = preprocess_dataset(dataset, workspace, configuration=configuration, workers=workers)
    failures = report.failures + preprocess_previous_stage(dataset, workspace, configuration=configuration, workers=workers)
    _note_unusable_cases(dataset, workspace)
    return failures


def set_runs_aside(runs: Sequence[Path], needed: Path | None = None) -> tuple[Path, ...]:
    """Move runs aside, each to `<fold>.previous`, whose earlier content is deleted, so that training starts anew.

    An unfinished run is no reason to lose a finished one: where that was set aside before, the unfinished one is deleted.

    Args:
        needed: a folder that training will read.

    Returns:
        The runs that were there.

    Raises:
        UsageError: `needed` would be moved or deleted, and nothing has been touched; or a run is being trained.
    """
    present = tuple(run for run in runs if run.is_dir())
    if needed:
        for run in present:
            for lost, how in _losses(run):
                if needed.resolve().is_relative_to(lost.resolve()):
                    raise UsageError(
                        "the weights to begin with lie in a run that --restart takes away",
                        file=needed,
                        found=f"{lost}, which would be {how}",
                        fix="copy the folder elsewhere and give that to --pretrained, or leave out --restart",
                    )
    for run in present:
        with folder_lock(run, wait=False):
            if _is_worth_less(run):
                shutil.rmtree(run)
                continue
            shutil.rmtree(_backup(run), ignore_errors=True)
            run.replace(_backup(run))
    return present


def _losses(run: Path) -> Sequence[tuple[Path, str]]:
    """What a new start takes away of a run and of the one that was set aside before it, and how."""
    if _is_worth_less(run):
        return ((run, "deleted"),)
    return ((run, "moved aside"), (_backup(run), "deleted"))


def _is_worth_less(run: Path) -> bool:
    """Tell if a run is unfinished, and the one that was set aside before it is finished."""
    return not is_finished(run) and is_finished(_backup(run))


@contextmanager
def _put_back_after_failure(aside: Sequence[Path]) -> Iterator[None]:
    """Put runs that were set aside back where new ones fail before their first epoch is over; a run given up has not failed."""
    from autoseg.training.pace import OtherRung

    try:
        yield
    except OtherRung:
        raise
    except Exception:
        for run in aside:
            if _backup(run).is_dir() and not (run / "metrics.csv").is_file():
                shutil.rmtree(run, ignore_errors=True)
                _backup(run).replace(run)
                log.warning("note: no epoch of the new run was finished, so the earlier one is back: %s", run)
        raise


def _backup(run: Path) -> Path:
    return run.with_name(f"{run.name}.previous")


def training_job(dataset: Dataset, workspace: Workspace, configuration: str | None, fold: str) -> TrainingJob:
    """The job that a planned dataset, a configuration and a fold make up.

    Cases that are not prepared as the plan now says are left out, with a note.

    Raises:
        UsageError: not planned yet, no such configuration or fold; the folds of a cascade's first stage are not all trained; the
            workspace holds work on another dataset of this name.
    """
    check_owner(dataset.name, dataset.root, workspace)
    folder = workspace.dataset_folder(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, chosen = plan.configuration(configuration)
    folds = load_folds(folder / "splits.json")
    prepared = workspace.prepared(dataset.name, plan.prepared_as(name))
    digests = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    current = {n: prepared_key(digest, plan.data, chosen.space) for n, digest in digests.items()}
    ready = {c.name: c for c in dataset.cases if c.name in current and stored_key(prepared, c.name) == current[c.name]}
    if len(ready) < len(folds.cases):
        log.warning("note: %d of %d cases are not prepared: autoseg preprocess", len(folds.cases) - len(ready), len(folds.cases))
    cascade = cascade_of(plan, name, workspace.runs(dataset.name), workspace.prepared(dataset.name))
    if cascade:
        maps = cascade.predictions(folds)
        keys = {n: cascade.key(maps[n], current[n]) for n in ready if n in maps}
        ready = {n: c for n, c in ready.items() if n in keys and stored_key(cascade.folder, n) == keys[n]}
    if remark := folds.remark(fold):
        log.warning("note: %s", remark)
    return TrainingJob(
        dataset=dataset.name,
        plan=plan,
        configuration=name,
        fold=fold,
        training=tuple(ready[n] for n in folds.training_cases(fold) if n in ready),
        validation=tuple(ready[n] for n in folds.validation_cases(fold) if n in ready),
        prepared=prepared,
        previous_stage=cascade.folder if cascade else None,
        run=workspace.run(dataset.name, name, fold),
    )
