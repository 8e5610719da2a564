"""Checkpoints: everything that a resumed run restores, as safetensors with JSON in the header; nothing executes on loading.

Tensors: the trained network, the averaged network, the optimizer. JSON: `State` (training/state.py), with the step, the budget,
the best score and the loss scale. Batches need nothing: they follow from the seed and the step (training/sampling.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoseg.errors import DataError, PlanError, UsageError
from autoseg.nets.weights import AVERAGED, load_weights, read_tensors
from autoseg.system.documents import parse_json
from autoseg.system.files import atomic_path
from autoseg.system.records import build_record, to_json
from autoseg.training.state import State

TRAINED = "network/"
OPTIMIZER = "optimizer/"
OLD_KEYS = {"interim": "n_interim_cases", "began": "budget_start"}  # of the state in checkpoints of earlier versions


def save_weights(path: Path, averaged: nn.Module, state: State) -> None:
    """Save only what prediction needs, atomically."""
    _save(path, _prefixed(AVERAGED, averaged.state_dict()), state)


def save_training(path: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Save everything that resuming needs, atomically."""
    tensors = _prefixed(AVERAGED, averaged.state_dict()) | _prefixed(TRAINED, network.state_dict())
    for name, parameter in network.named_parameters():
        tensors |= _prefixed(f"{OPTIMIZER}{name}/", optimizer.state.get(parameter, {}))
    _save(path, tensors, state)


def load_state(path: Path) -> State:
    """Read the state of a run from last.safetensors or best.safetensors.

    Raises:
        DataError: not a checkpoint, damaged, or of a later version of autoseg.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get("state", "{}")
        state = build_record(State, _with_new_keys(parse_json(text, path, PlanError)), path)
        _check_state(state)
        return state
    except (SafetensorError, OSError, PlanError, UsageError) as error:
        raise DataError("the checkpoint cannot be read", file=path, found=str(error), fix="train again with --restart") from error


def load_training(path: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore the network, the averaged network and the optimizer, as `save_training` wrote them; raises as `load_weights`."""
    load_weights(path, network, TRAINED)
    load_weights(path, averaged, AVERAGED)
    stored = read_tensors(path, OPTIMIZER)
    for name, parameter in network.named_parameters():
        own = {k.removeprefix(f"{name}/"): v for k, v in stored.items() if k.startswith(f"{name}/")}
        optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in own.items()}


def _with_new_keys(document: Any) -> Any:
    """A state with the keys of earlier versions renamed; what is no object stays as it is."""
    return {OLD_KEYS.get(key, key): value for key, value in document.items()} if isinstance(document, dict) else document


def _check_state(state: State) -> None:
    """Checks the numbers of a state.

    Raises:
        PlanError, UsageError: one that no training has.
    """
    counts = ("step", "elapsed", "reserve", "n_interim_cases", "rollbacks", "loss_steps", "scale_steps", "threads")
    for key in counts:
        if getattr(state, key) < 0:
            raise PlanError(f"'{key}' of the training is negative", found=getattr(state, key), allowed="0 or more")
    if state.loss_scale <= 0:
        raise PlanError("'loss_scale' of the training cannot be", found=state.loss_scale, allowed="above 0")
    _ = state.budget  # which checks itself


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + k: v.detach().contiguous() for k, v in tensors.items() if isinstance(v, Tensor)}


def _save(path: Path, tensors: dict[str, Tensor], state: State) -> None:
    with atomic_path(path) as temporary:
        temporary.touch()  # as any new file is made, so that its mode shows what the umask leaves
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, str(temporary), metadata={"state": json.dumps(json.loads(to_json(state)))})
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(str(error)) from error
        os.chmod(temporary, mode)  # safetensors writes for the owner only; a model is there to be shared
