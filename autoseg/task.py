"""What a training needs to know: the cases of a fold, the plan, and where things lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.cascade import cascade_of
from autoseg.claim import check_claim
from autoseg.dataset import Case, Dataset, unit_of
from autoseg.fingerprint import load_fingerprint
from autoseg.folds import load_folds
from autoseg.landmarks import Unit
from autoseg.plan import Plan, load_plan
from autoseg.preprocess import prepared_key
from autoseg.progress import log
from autoseg.store import stored_key
from autoseg.workspace import Workspace


@dataclass(frozen=True)
class TrainTask:
    """What to train: a plan's configuration on the cases of a fold, prepared in one folder, into another.

    Args:
        before: the folder of what an earlier stage found, if there is one.
        seed: of weights, sampling and augmentation.
        threads: that prepare batches; 0 for none. They change nothing but the time.
        deterministic: the same run gives the same numbers again, killed and continued or not (see `repeatable`).
        tensorboard: write event files beside metrics.csv.
        compiled: train with the network as torch compiles it, where that works; None means where it is worth it.
    """

    dataset: str
    plan: Plan
    configuration: str
    fold: str
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    prepared: Path
    before: Path | None
    run: Path
    seed: int = 0
    threads: int = 1
    deterministic: bool = False
    tensorboard: bool = False
    compiled: bool | None = None

    @property
    def unit(self) -> Unit:
        """Of the errors of landmarks."""
        return unit_of((*self.training, *self.validation))


def train_task(
    dataset: Dataset, workspace: Workspace, configuration: str | None, fold: str, seed: int = 0, threads: int = 1
) -> TrainTask:
    """The task that a planned dataset, a configuration and a fold make up.

    Cases that are not prepared as the plan now says are left out, with a note.

    Raises:
        UsageError: not planned yet, no such configuration or fold; the folds of an earlier stage are not all trained; the
            workspace holds work on another dataset of this name.
    """
    check_claim(dataset.name, dataset.root, workspace)
    folder = workspace.about(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, chosen = plan.configuration(configuration)
    folds = load_folds(folder / "splits.json")
    prepared = workspace.prepared(dataset.name, plan.prepared_as(name))
    digests = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    wanted = {n: prepared_key(digest, plan.data, chosen.space) for n, digest in digests.items()}
    ready = {c.name: c for c in dataset.cases if c.name in wanted and stored_key(prepared, c.name) == wanted[c.name]}
    if len(ready) < len(folds.cases):
        log.warning("note: %d of %d cases are not prepared: autoseg preprocess", len(folds.cases) - len(ready), len(folds.cases))
    cascade = cascade_of(plan, name, workspace.runs(dataset.name), workspace.prepared(dataset.name))
    if cascade:
        maps = cascade.predictions(folds)
        keys = {n: cascade.key(maps[n], wanted[n]) for n in ready if n in maps}
        ready = {n: c for n, c in ready.items() if n in keys and stored_key(cascade.folder, n) == keys[n]}
    if remark := folds.remark(fold):
        log.warning("note: %s", remark)
    return TrainTask(
        dataset=dataset.name,
        plan=plan,
        configuration=name,
        fold=fold,
        training=tuple(ready[n] for n in folds.training_cases(fold) if n in ready),
        validation=tuple(ready[n] for n in folds.validation_cases(fold) if n in ready),
        prepared=prepared,
        before=cascade.folder if cascade else None,
        run=workspace.run(dataset.name, name, fold),
        seed=seed,
        threads=threads,
    )
