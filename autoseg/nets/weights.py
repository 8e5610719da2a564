"""Weights on disk: safetensors in, a filled network out."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from autoseg.errors import DataError, PlanError

AVERAGED = "ema/"  # the weights that predict


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
