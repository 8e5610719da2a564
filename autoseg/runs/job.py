"""A training job: a plan's configuration, the cases of a fold, and the folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import Case, unit_of
from autoseg.imaging.landmarks import Unit
from autoseg.plan import Plan


@dataclass(frozen=True)
class TrainingJob:
    """A plan's configuration to train on the cases of a fold.

    Args:
        prepared: folder of the prepared cases.
        previous_stage: folder of what the previous stage of a cascade predicted; None where there is none.
        run: folder that the run is written to.
        by_time: the plan's ladder has chosen the configuration for a limit of time: where steps take more or less time
            than planned, another rung may be trained instead.
        instead_of: why another rung of the plan's ladder is not trained, if it was given up.
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
    by_time: bool = False
    instead_of: str | None = None

    @property
    def unit(self) -> Unit:
        """Unit of the landmarks' errors."""
        return unit_of((*self.training, *self.validation))
