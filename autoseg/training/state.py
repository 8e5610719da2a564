"""The state of a training run: everything of it that is not a tensor, and how it changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoseg.runs.budget import RunBudget
from autoseg.runs.history import Epoch

INITIAL_LOSS_SCALE = 2.0**16  # as torch's GradScaler


@dataclass(frozen=True)
class BudgetStart:
    """Where a run began to spend its budget: at nothing, or where it had ended before it was extended."""

    step: int = 0
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class Transfer:
    """Weights of another model that a run began with.

    Args:
        model: the folder they are from.
        frozen: they stay as they are, instead of learning at a lower rate.
        taken: their names, of `n_tensors` that the network has.
    """

    model: str
    frozen: bool
    taken: tuple[str, ...]
    n_tensors: int

    def __str__(self) -> str:
        how = "which stay as they are" if self.frozen else "which learn at a lower rate"
        return f"{len(self.taken)} of {self.n_tensors} tensors from {self.model}, {how}"


@dataclass(frozen=True)
class State:
    """Everything of a training run that is not a tensor.

    Args:
        budget_seconds, budget_epochs: the run's budget, one of the two.
        elapsed: seconds of training up to the last save.
        reserve: seconds kept for the final validation.
        n_interim_cases: number of validation cases scored at the end of an epoch; 0 before the first time.
        best: score of the best epoch (see `Epoch.score`); None before the first.
        budget_start: where the run began to spend its budget.
        patience: scored epochs without a better score after which training ends; None for no such limit.
        rollbacks: number of times that training went wrong and was set back; each halves the learning rate.
        loss_total, loss_steps: sum of the losses since the last epoch ended, and their number.
        scale_steps: steps since the loss scale was last changed.
        threads: torch threads used; results are bit-identical only with the same number. 0 in older checkpoints.
    """

    budget_seconds: float | None
    budget_epochs: int | None
    seed: int
    step: int
    elapsed: float
    reserve: float
    n_interim_cases: int
    best: float | None
    loss_scale: float
    history: tuple[Epoch, ...]
    budget_start: BudgetStart = BudgetStart()
    patience: int | None = None
    rollbacks: int = 0
    transfer: Transfer | None = None
    loss_total: float = 0.0
    loss_steps: int = 0
    scale_steps: int = 0
    threads: int = 0

    @staticmethod
    def new(budget: RunBudget, seed: int, transfer: Transfer | None = None) -> State:
        """The state of a run before its first step."""
        return State(
            budget_seconds=budget.seconds,
            budget_epochs=budget.epochs,
            seed=seed,
            step=0,
            elapsed=0.0,
            reserve=0.0,
            n_interim_cases=0,
            best=None,
            loss_scale=INITIAL_LOSS_SCALE,
            history=(),
            transfer=transfer,
        )

    @property
    def budget(self) -> RunBudget:
        return RunBudget(self.budget_seconds, self.budget_epochs)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the steps since the last epoch ended; there must be one."""
        return self.loss_total / self.loss_steps

    @property
    def budget_rows(self) -> tuple[Epoch, ...]:
        """Rows of the curve that belong to the present budget, which a run before its extension had not."""
        return self.history[self.budget_start.epochs :]

    def unspent(self, steps_per_epoch: int) -> tuple[float, int]:
        """Seconds and steps of the budget that are not spent; 0 of the one that does not limit the run."""
        seconds = (self.budget_seconds or 0.0) - (self.elapsed - self.budget_start.seconds)
        steps = (self.budget_epochs or 0) * steps_per_epoch - (self.step - self.budget_start.step)
        return max(0.0, seconds), max(0, steps)

    def is_better(self, row: Epoch) -> bool:
        """Whether an epoch has a better score than all before."""
        return row.score is not None and (self.best is None or row.score > self.best)

    def extended(self) -> State:
        """A finished run that begins to spend another budget."""
        return replace(self, budget_start=BudgetStart(self.step, self.elapsed, len(self.history)), rollbacks=0)

    def begun(self, budget: RunBudget, patience: int | None, threads: int) -> State:
        """The run as a process takes it up.

        Args:
            patience: None keeps that of the interrupted run.
        """
        return replace(
            self,
            budget_seconds=budget.seconds,
            budget_epochs=budget.epochs,
            patience=patience or self.patience,
            threads=threads,
        )

    def after_step(self, loss: float) -> State:
        return replace(self, step=self.step + 1, loss_total=self.loss_total + loss, loss_steps=self.loss_steps + 1)

    def after_epoch(self, row: Epoch) -> State:
        best = row.score if self.is_better(row) else self.best
        return replace(self, history=(*self.history, row), best=best, loss_total=0.0, loss_steps=0)

    def rolled_back_to(self, saved: State) -> State:
        """Back at the step of an earlier state; elapsed time and the curve are not reset."""
        return replace(
            self, step=saved.step, loss_total=saved.loss_total, loss_steps=saved.loss_steps, rollbacks=self.rollbacks + 1
        )

    def rolled_back(self) -> State:
        """With the weights of an earlier epoch; the steps go on."""
        return replace(self, rollbacks=self.rollbacks + 1)

    def at_save(self, elapsed: float, loss_scale: float, scale_steps: int) -> State:
        return replace(self, elapsed=elapsed, loss_scale=loss_scale, scale_steps=scale_steps)
