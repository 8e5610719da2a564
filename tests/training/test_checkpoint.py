"""Checkpoints: what goes in comes out, training goes on as if nothing had happened, and nothing in them can execute."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from helpers.mutations import damaged_json
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from autoseg.errors import DataError, DiskError, PlanError, ResourceError
from autoseg.nets.weights import AVERAGED, load_weights
from autoseg.runs.history import Epoch
from autoseg.system.records import to_json
from autoseg.training import checkpoint
from autoseg.training.checkpoint import TRAINED, load_state, load_training, save_training, save_weights
from autoseg.training.state import BudgetStart, State

EPOCH = Epoch(1, 250, 12.5, 3e-3, -0.25, None, 0.05, 0.01, 1.5)
STATE = State(600.0, None, 3, 250, 12.5, 4.0, 8, -1.0, 65536.0, (EPOCH, replace(EPOCH, epoch=2, case_dice=0.5, peak_ram_gb=None)))


def network(seed: int, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.GroupNorm(width, width), nn.Conv2d(width, 2, 1))


def optimizer(kind: str, of: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(of.parameters(), lr=0.1, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(of.parameters(), lr=0.1, fused=True)


def step(net: nn.Module, by: torch.optim.Optimizer, seed: int) -> None:
    image = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    by.zero_grad()
    net(image).square().mean().backward()
    by.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_training_round_trip(kind: str, tmp_path: Path) -> None:
    net, averaged = network(0), network(1)
    by = optimizer(kind, net)
    for i in range(3):
        step(net, by, i)
    path = tmp_path / "run" / "last.safetensors"
    save_training(path, net, averaged, by, STATE)

    again, averaged_again = network(2), network(3)
    by_again = optimizer(kind, again)
    load_training(path, again, averaged_again, by_again)
    assert same(net, again)
    assert same(averaged, averaged_again)
    for i in range(3, 6):
        step(net, by, i)
        step(again, by_again, i)
    assert same(net, again)
    assert load_state(path) == STATE


def test_an_untrained_network_can_be_saved(tmp_path: Path) -> None:
    net = network(0)
    save_training(tmp_path / "a.safetensors", net, network(1), optimizer("sgd", net), STATE)
    again = network(2)
    load_training(tmp_path / "a.safetensors", again, network(3), optimizer("sgd", again))
    assert same(net, again)


def test_weights_for_prediction_are_the_averaged_ones(tmp_path: Path) -> None:
    net, averaged, empty = network(0), network(1), network(2)
    save_training(tmp_path / "last.safetensors", net, averaged, optimizer("sgd", net), STATE)
    load_weights(tmp_path / "last.safetensors", empty)
    assert same(empty, averaged)
    load_weights(tmp_path / "last.safetensors", empty, TRAINED)
    assert same(empty, net)
    save_weights(tmp_path / "best.safetensors", averaged, STATE)
    load_weights(tmp_path / "best.safetensors", empty)
    assert same(empty, averaged)
    assert load_state(tmp_path / "best.safetensors") == STATE


def test_other_network_is_named_tensor_by_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(0), STATE)
    with pytest.raises(PlanError, match=r"another network.*0\.weight \(3, 1, 3, 3\) instead of \(5, 1, 3, 3\)"):
        load_weights(path, network(0, width=5))
    with pytest.raises(PlanError, match=r"0\.bias None instead of \(3,\)"):  # best.safetensors holds nothing to resume from
        load_training(path, network(0), network(0), optimizer("sgd", network(0)))


@pytest.mark.parametrize("damage", ["absent", "empty", "cut off", "text", "header"])
def test_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(0), STATE)
    whole = path.read_bytes()
    path.unlink()
    if damage != "absent":
        content = {"empty": b"", "cut off": whole[:-20], "text": b"not a checkpoint at all", "header": b"\xff" * 8 + whole[8:]}
        path.write_bytes(content[damage])
    with pytest.raises(DataError, match="cannot be read"):
        load_state(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_weights(path, network(0))


def test_tensors_of_another_program_are_no_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, str(tmp_path / "a.safetensors"))
    with pytest.raises(DataError, match=r"cannot be read.*missing key 'budget_seconds'"):
        load_state(tmp_path / "a.safetensors")


def test_file_is_json_and_numbers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(0), STATE)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    state = json.loads(header.pop("__metadata__")["state"])
    assert state["history"][0]["train_loss"] == -0.25
    assert all(name.startswith(AVERAGED) for name in header)
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert len(raw) == 8 + length + 4 * sum(v.numel() for v in network(0).state_dict().values())


def test_keys_of_earlier_versions_are_read(tmp_path: Path) -> None:
    state = replace(STATE, budget_start=BudgetStart(100, 6.0, 1))
    document = json.loads(to_json(state))
    for key, old in (("n_interim_cases", "interim"), ("budget_start", "began")):
        document[old] = document.pop(key)
    save_file({"ema/a": torch.zeros(1)}, str(tmp_path / "a.safetensors"), metadata={"state": json.dumps(document)})
    assert load_state(tmp_path / "a.safetensors") == state


@pytest.mark.parametrize("text", ["[]", "no JSON", '{"interim": 8}'])
def test_state_of_another_program(text: str, tmp_path: Path) -> None:
    save_file({"ema/a": torch.zeros(1)}, str(tmp_path / "a.safetensors"), metadata={"state": text})
    with pytest.raises(DataError, match="the checkpoint cannot be read"):
        load_state(tmp_path / "a.safetensors")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, network(0), STATE)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(ResourceError, match=r"cannot write.*No space left"):
        save_weights(path, network(1), STATE)
    kept = network(2)
    load_weights(path, kept)
    assert same(kept, network(0))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    """What a full disk does, with safetensors' own error."""
    import resource

    path = tmp_path / "a.safetensors"
    save_weights(path, network(0), STATE)
    before, usual = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, usual[1]))
    try:
        with pytest.raises(DiskError, match=r"cannot write; file: .*a\.safetensors; found: .*; fix: free disk space"):
            save_weights(path, network(1), STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_mode_of_checkpoints(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    save_weights(tmp_path / "best.safetensors", network, STATE)
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "best.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    usual = os.umask(0o077)
    try:
        save_weights(tmp_path / "private.safetensors", network, STATE)
    finally:
        os.umask(usual)
    assert (tmp_path / "private.safetensors").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, r"'step' of the training is negative; found: -1; allowed: 0 or more"),
        ({"elapsed": -0.5}, r"'elapsed' of the training is negative"),
        ({"elapsed": float("nan")}, r"'elapsed' cannot be used; file: .*found: NaN; allowed: a finite number"),
        ({"elapsed": float("inf")}, r"'elapsed' cannot be used; .*found: Infinity"),
        ({"loss_scale": 0.0}, r"'loss_scale' of the training cannot be; found: 0\.0"),
        ({"budget_seconds": None}, r"give either --time or --epochs"),
        ({"history": [{"epoch": 1}]}, r"missing key 'history\[0\]\.step'"),
        ({"seed": 10**400}, r"'seed' cannot be used; .*allowed: a number of 64 bits"),
    ],
)
def test_a_state_that_no_training_has(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "last.safetensors"
    text = json.dumps({**json.loads(to_json(STATE)), **changes})
    save_file({"a": torch.zeros(1)}, str(path), metadata={"state": text})
    with pytest.raises(DataError, match=rf"^the checkpoint cannot be read; file: .*{message}.*; fix: train again with --restart"):
        load_state(path)


@given(st.randoms(use_true_random=False))
def test_a_damaged_state_is_an_error_of_ours_or_none(tmp_path_factory: pytest.TempPathFactory, random: Random) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    text = damaged_json(to_json(STATE), random).decode("utf-8", "replace")
    save_file({"a": torch.zeros(1)}, str(path), metadata={"state": text})
    with contextlib.suppress(DataError):
        load_state(path)
