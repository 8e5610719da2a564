"""What a training needs to know: the cases of a fold, the plan, and where things lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import Case, unit_of
from autoseg.imaging.landmarks import Unit
from autoseg.plan import Plan


@dataclass(frozen=True)
class TrainingJob:
    """What to train: a plan's configuration on the cases of a fold, prepared in one folder, into another.

    Args:
        before: the folder of what an earlier stage found, if there is one.
        seed: of weights, sampling and augmentation.
        threads: that prepare batches; 0 for none. They change nothing but the time.
        deterministic: the same run gives the same numbers again, killed and continued or not (see `determinism`).
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
    previous_stage: Path | None
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
