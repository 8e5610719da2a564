"""Validation on whole cases. What it writes and scores is tested with training, in test_train.py."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny import Tiny, TinyRuns

from autoseg.errors import DataError
from autoseg.inference.model import load_model
from autoseg.nets.device import Device
from autoseg.preprocessing.store import StoredCase
from autoseg.training.validation import case_scores, validate


def test_validation_ends_in_time(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    job = tiny.job(tmp_path)
    assert validate(model, job.training, tmp_path, prepared=job.prepared, seconds=0).n_cases == 1
    assert "time for 1 of 4 validation cases only" in caplog.text
    assert len(list((tmp_path / "validation").iterdir())) == 1
    none = validate(model, job.training, tmp_path / "none", prepared=job.prepared, seconds=5, case_seconds=60)
    assert (none.n_cases, none.case_dice, none.rules) == (0, None, ())
    assert "no time to validate, a case would take 1 min 00 s" in caplog.text
    assert validate(model, job.training, tmp_path, prepared=job.prepared).n_cases == 4


def test_labelled_cases_are_validated_first(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    job = tiny.job(tmp_path)
    first, *others = job.training
    found = validate(
        model,
        [replace(first, label=None), *others],
        tmp_path,
        prepared=job.prepared,
        candidates=("largest_foreground",),
        seconds=0,
    )
    assert found.n_cases == 1
    assert found.case_dice is not None


def test_an_interrupted_validation_continues(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    job = tiny.job(tmp_path)
    whole = validate(model, job.training, tmp_path / "whole", prepared=job.prepared)
    validate(model, job.training[:2], tmp_path / "parts", prepared=job.prepared)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "parts" / "validation").iterdir()}
    assert validate(model, job.training, tmp_path / "parts", prepared=job.prepared) == whole
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "parts" / "validation").iterdir()}
    assert len(before) == 2
    assert len(after) == 4
    assert before.items() <= after.items()  # not predicted again


def test_a_prepared_case_that_cannot_be_read(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that loses its end after it was found complete."""
    model, _ = load_model(tiny_runs.runs[:1], float32_cpu)
    job = tiny.job(tmp_path)
    prepared = tmp_path / "prepared"
    shutil.copytree(job.prepared, prepared)
    name = job.training[0].name
    stored = StoredCase.open(prepared, name)
    image = prepared / f"{name}.image.b2nd"
    image.write_bytes(image.read_bytes()[:-100])
    monkeypatch.setattr(StoredCase, "open", lambda *_: stored)
    message = (
        rf"case {name}: validate: the prepared case cannot be read; file: .*\.image\.b2nd; found: other bytes than were.*; fix"
    )
    with pytest.raises(DataError, match=message):
        case_scores(model, [stored])
    with pytest.raises(DataError, match=message):
        validate(model, job.training[:1], tmp_path, prepared=prepared)
