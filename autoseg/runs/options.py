"""Options of a training beside its `TrainingJob`: how long, from which weights, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import UsageError
from autoseg.runs.budget import RunBudget, check_deterministic


@dataclass(frozen=True)
class Pretrained:
    """The folder of the run whose weights a new run begins with, and whether these weights are frozen.

    Raises:
        UsageError: no weights there.
    """

    model: Path
    freeze: bool

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise UsageError(
                "no weights to begin with", file=self.model, allowed="the folder of a run, which holds last.safetensors"
            )

    @property
    def file(self) -> Path:
        return self.model / "last.safetensors"


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training; those of one fold and of several are the same.

    Args:
        budget: of each fold. None means that of the interrupted run, or the plan's time or number of
            epochs for a new one.
        extend: train the finished run in the folder for another `budget`, at the learning rate of
            `schedule.extension_factor`; its averaged weights and its curve go on. Until the extension
            has ended, the run counts as unfinished.
        patience: end after so many scored epochs in a row without a better score; an epoch of a timed
            run is one report. None means that of the interrupted run, or no such limit.
        pretrained: weights that a new run begins with.
        seed: of weights, sampling and augmentation. An interrupted run keeps its own.
        threads: number of threads that prepare batches; 0 for none. They change nothing but the time.
        deterministic: the same run gives the same numbers again, whether or not it is killed and
            continued (see `training.determinism`).
        tensorboard: write event files beside metrics.csv.
        compiled: train with the network as torch compiles it, where that works; None means where it
            is worth it.

    Raises:
        UsageError: `deterministic` with a budget of time; a negative seed or number of threads.
    """

    budget: RunBudget | None = None
    extend: bool = False
    patience: int | None = None
    pretrained: Pretrained | None = None
    seed: int = 0
    threads: int = 1
    deterministic: bool = False
    tensorboard: bool = False
    compiled: bool | None = None

    def __post_init__(self) -> None:
        for word, number in (("seed", self.seed), ("number of threads", self.threads)):
            if number < 0:
                raise UsageError(f"the {word} is negative", found=number, allowed="0 or more")
        if self.deterministic and self.budget:
            check_deterministic(self.budget)


def pretrained_from_options(model: Path | None, freeze: bool) -> Pretrained | None:
    """The weights that the options --pretrained and --freeze ask for.

    Raises:
        UsageError: no weights there, or --freeze alone.
    """
    if model is None and freeze:
        raise UsageError("--freeze keeps the weights of another model", fix="add --pretrained MODEL")
    return Pretrained(model, freeze) if model else None
