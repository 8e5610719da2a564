"""Benchmarks: every script imports without running, and answers --help."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("bench_*.py"))
WITHOUT_OPTIONS = {"bench_resample"}


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is on the path, as for a script that is run, and environment variables are put back."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def test_scripts_were_collected() -> None:
    assert len(SCRIPTS) >= 16


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_import_runs_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(path)
    assert callable(module.main)
    assert module.__doc__
    assert f"python benchmarks/{path.name}" in module.__doc__
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("path", [p for p in SCRIPTS if p.stem not in WITHOUT_OPTIONS], ids=lambda path: path.stem)
def test_help_names_the_options(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert f"usage: {path.name}" in capsys.readouterr().out
