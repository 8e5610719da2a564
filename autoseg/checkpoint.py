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
from autoseg.files import atomic_path
from autoseg.history import Epoch
from autoseg.records import from_json, to_json

_UMASK = os.umask(0)  # there is no way to ask without setting it
os.umask(_UMASK)

AVERAGED = "ema/"  # the weights that predict
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


def load_weights(path: Path, network: nn.Module, prefix: str = AVERAGED) -> None:
    """Fills a network with the averaged (or trained) weights.

    Raises:
        DataError: damaged file.
        PlanError: weights of another network; names the first tensors that do not fit.
    """
    _fill(network, read_tensors(path, prefix), path)


def read_tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it.

    Raises:
        DataError: damaged file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
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


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in tensors.items()}
    if own != given:
        odd = sorted(k for k in own.keys() | given.keys() if own.get(k) != given.get(k))
        raise PlanError(
            "the weights belong to another network",
            file=path,
            found=", ".join(f"{k} {given.get(k)} instead of {own.get(k)}" for k in odd[:3]),
            fix="use the plan that the model was trained with, or train again with --restart",
        )
    network.load_state_dict(tensors)
