"""Weights and training state on disk: safetensors with JSON in its header. Nothing that could execute on loading."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoseg.errors import DataError, PlanError
from autoseg.nets.weights import AVERAGED, load_weights, read_tensors
from autoseg.runs.history import Epoch
from autoseg.system.files import atomic_path
from autoseg.system.records import from_json, to_json

_UMASK = os.umask(0)  # there is no way to ask without setting it
os.umask(_UMASK)

TRAINED = "network/"
OPTIMIZER = "optimizer/"


@dataclass(frozen=True)
class Beginning:
    """Where a run began to spend its budget: at nothing, or where it had ended before it was extended."""

    step: int = 0
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class Transfer:
    """Weights that a run has begun with.

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
        budget_seconds, budget_epochs: what the run was given, one of the two.
        reserve: seconds kept for the final validation.
        interim: number of validation cases scored along the way, 0 before the first time.
        rollbacks: how often training went wrong and was set back; each time halves the learning rate.
        best: score of the best epoch (see `Epoch.score`); None before the first.
        patience: scored epochs without a better score after which training ends; None for no such limit.
        loss_total, loss_steps: sum of the losses since the last report, and how many they are.
        scale_steps: steps since the loss scale was last changed.
        threads: that the network has computed on; with another number the last digits would differ. 0 where it is not told.
    """

    budget_seconds: float | None
    budget_epochs: int | None
    seed: int
    step: int
    elapsed: float
    reserve: float
    interim: int
    best: float | None
    loss_scale: float
    history: tuple[Epoch, ...]
    began: Beginning = Beginning()
    patience: int | None = None
    rollbacks: int = 0
    transfer: Transfer | None = None
    loss_total: float = 0.0
    loss_steps: int = 0
    scale_steps: int = 0
    threads: int = 0


def save_weights(path: Path, averaged: nn.Module, state: State) -> None:
    """Only what prediction needs, atomically."""
    _save(path, _prefixed(AVERAGED, averaged.state_dict()), state)


def save_training(path: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Everything that resuming needs, atomically."""
    tensors = _prefixed(AVERAGED, averaged.state_dict()) | _prefixed(TRAINED, network.state_dict())
    for name, parameter in network.named_parameters():
        tensors |= _prefixed(f"{OPTIMIZER}{name}/", optimizer.state.get(parameter, {}))
    _save(path, tensors, state)


def load_state(path: Path) -> State:
    """
    Raises:
        DataError: not a checkpoint, damaged, or of another version of autoseg.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return from_json(State, (file.metadata() or {}).get("state", "{}"), path)
    except (SafetensorError, OSError, PlanError) as error:
        raise DataError("the checkpoint cannot be read", file=path, found=str(error), fix="train again with --restart") from error


def load_training(path: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of `save_training`; same errors as `load_weights`."""
    load_weights(path, network, TRAINED)
    load_weights(path, averaged, AVERAGED)
    stored = read_tensors(path, OPTIMIZER)
    for name, parameter in network.named_parameters():
        own = {k.removeprefix(f"{name}/"): v for k, v in stored.items() if k.startswith(f"{name}/")}
        optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in own.items()}


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + k: v.detach().contiguous() for k, v in tensors.items() if isinstance(v, Tensor)}


def _save(path: Path, tensors: dict[str, Tensor], state: State) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata={"state": json.dumps(json.loads(to_json(state)))})
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error
        os.chmod(temporary, 0o666 & ~_UMASK)  # safetensors writes for the owner only; a model is there to be shared
