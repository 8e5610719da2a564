"""Odd names of files on the command line: their case fails alone, and no terminal obeys them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.limits import HANGS
from helpers.tiny import Tiny

ODD = ("a\x1b[2Jb", "line\nbreak", "\u202eright", "b" * 240)


def autoseg(*words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "autoseg", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS, check=False)


@pytest.fixture
def odd(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny dataset with a case more for each odd name."""
    root = Path(shutil.copytree(tiny.data, tmp_path / "Dataset001_Odd"))
    for name in ODD:
        for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            shutil.copy(root / folder / f"phantom_000{ending}", root / folder / f"{name}{ending}")
    return root


def test_a_file_of_an_odd_name_fails_alone(odd: Path, tmp_path: Path) -> None:
    done = autoseg("fingerprint", "-d", odd, "--root", tmp_path / "work", "--json")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("a case needs a name that can be a file's") == 3
    assert "failed: case a\\x1b[2Jb: a case needs a name that can be a file's; file: " in done.stderr
    assert not any(c in done.stdout + done.stderr for c in "\x1b\u202e")
    document = json.loads(done.stdout)
    assert [case["name"] for case in document["cases"]][-1] == "\u202eright"  # of text, if not to a terminal
    assert len(document["cases"]) == 6
    assert "3 cases failed" in done.stderr
    assert (tmp_path / "work/datasets/Dataset001_Odd/failed.csv").is_file()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", '{"name": "Köln"}'.encode("latin-1")),
        ("fingerprint.json", b"[" * 100_000),
        ("splits.json", b'{"dataset": ' + b"9" * 5000 + b"}"),
    ],
)
def test_a_damaged_document_is_one_line_and_exit_code_2(tiny: Tiny, tmp_path: Path, name: str, content: bytes) -> None:
    root = tmp_path / "work"
    shutil.copytree(tiny.workspace.root / "datasets", root / "datasets")
    file = root / "datasets" / tiny.dataset.name / name
    file.write_bytes(content)
    command = "fingerprint" if name == "splits.json" else "preprocess"
    done = autoseg(command, "-d", tiny.data, "--root", root)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("autoseg: error: the ")
    assert f"file: {file}" in done.stderr
    assert "fix: " in done.stderr
    assert "Traceback" not in done.stderr
