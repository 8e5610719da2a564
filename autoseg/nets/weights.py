"""Weights on disk: reads safetensors into a network."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from autoseg.errors import DataError, PlanError, first_few

AVERAGED = "ema/"  # the weights that predict


def load_weights(path: Path, network: nn.Module, prefix: str = AVERAGED) -> None:
    """Loads averaged weights, or those of another prefix, into a network.

    Raises:
        DataError: damaged file, or weights that are no finite numbers.
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


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    available = {k: tuple(v.shape) for k, v in tensors.items()}
    if expected != available:
        names = expected.keys() | available.keys()
        differing = sorted(k for k in names if expected.get(k) != available.get(k))
        raise PlanError(
            "the weights belong to another network",
            file=path,
            found=", ".join(f"{k} {available.get(k)} instead of {expected.get(k)}" for k in differing[:3]),
            fix="use the plan that the model was trained with, or train again with --restart",
        )
    numbers = [k for k, v in network.state_dict().items() if v.is_floating_point()]  # counters of a plugin's block are whole
    damaged = [k for k in numbers if not tensors[k].is_floating_point() or not bool(torch.isfinite(tensors[k]).all())]
    if damaged:
        raise DataError(
            "the weights are no finite numbers, so the network would predict nothing",
            file=path,
            found=f"{first_few(damaged)}: {tensors[damaged[0]].dtype}",
            fix="copy the model again, or train it again with --restart",
        )
    network.load_state_dict(tensors)
