"""Seconds that a training's first steps take, against those of its plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from autoseg.plan import Rung
from autoseg.plan.ladder import TRAINING_SHARE, choose_rung, edited_rung
from autoseg.system.progress import duration, log
from autoseg.training.distributed import world_size
from autoseg.training.run import TrainingRun

FIRST = 2  # steps that are not measured: memory is allocated in them
MEASURED = 8
MOST_TIME = 0.05  # of the budget, that measuring may take
OFF = 4 / 3  # times the planned seconds, or one by that, from which it is said
LEAST_GAIN = 0.02  # of Dice that another rung must promise to be started instead: what has been spent is lost


class OtherRung(Exception):
    """More or fewer steps than planned fit into the time, so that another rung of the plan's ladder promises more.

    Args:
        rung: to start instead.
        run: folder of the run that is given up.
        seconds: its limit of time.
        left: seconds of it that are left.
        step_s: seconds that a step takes.
        reason: why, as a clause.
    """

    def __init__(self, rung: Rung, run: Path, *, seconds: float, left: float, step_s: float, reason: str) -> None:
        super().__init__(reason)
        self.rung, self.run, self.seconds, self.left, self.step_s, self.reason = rung, run, seconds, left, step_s, reason


@dataclass
class PaceCheck:
    """Measures the first steps of a run that is limited by time, and tells once where the plan was far off."""

    _times: list[float] = field(default_factory=list)
    _done: bool = False

    def after_step(self, run: TrainingRun) -> None:
        """Note that a step has ended.

        Raises:
            OtherRung: see there; only in a new run.
        """
        seconds, footprint = run.budget.seconds, run.configuration.footprint
        if self._done or seconds is None or footprint is None or not footprint.step_s or run.forward is not run.network:
            return
        self._times.append(run.clock())
        steps = [b - a for a, b in zip(self._times, self._times[1:])][FIRST - 1 :]
        enough = len(steps) >= MEASURED or (len(steps) >= 2 and run.clock() - run.start_time > MOST_TIME * seconds)
        if enough:
            self._done = True
            _compare(run, median(steps), footprint.step_s, seconds)


def _compare(run: TrainingRun, step_s: float, planned_s: float, seconds: float) -> None:
    slowdown = step_s / planned_s
    if 1 / OFF <= slowdown <= OFF or world_size() > 1:  # several devices share a step that was planned for one
        return
    left = seconds - (run.elapsed - run.state.budget_start.seconds)
    holds = TRAINING_SHARE * seconds / step_s
    reason = (
        f"a step takes {step_s:.2g} s where the plan says {planned_s:.2g}: {duration(seconds)} hold about {holds:.0f} steps "
        f"instead of {TRAINING_SHARE * seconds / planned_s:.0f}"
    )
    new = run.state.step <= FIRST + MEASURED + 1 and not run.options.extend
    if run.job.by_time and new and (rung := _better_rung(run, left, slowdown)):
        raise OtherRung(rung, run.job.run, seconds=seconds, left=left, step_s=step_s, reason=reason)
    log.warning("note: %s", reason)


def _better_rung(run: TrainingRun, seconds: float, slowdown: float) -> Rung | None:
    """The rung to start instead, if one is expected to do better than this run's in the time that is left.

    A run that stands in for another one gives way to coarser rungs only: it came from a coarser or a finer one itself.
    """
    plan, name = run.job.plan, run.job.configuration
    names = [rung.configuration for rung in plan.ladder]
    if name not in names or edited_rung(plan.ladder, plan.configurations, first=name):
        return None
    n = len(plan.data.labels.names)
    choice = choose_rung(plan.ladder, plan.configurations, seconds, n_structures=n, slowdown=slowdown)
    other = choice.rung.configuration
    if run.job.instead_of and names.index(other) < names.index(name):
        return None
    return choice.rung if choice.expected[other] - choice.expected[name] > LEAST_GAIN else None
