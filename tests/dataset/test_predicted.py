"""predicted.jsonl: what made a file, read and written line by line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.dataset import Case
from autoseg.dataset.predicted import PREDICTED, Maker, Origin, image_stamp, makers, origins, recorded
from autoseg.errors import DiskError

ONE = Maker("12ab", "Task01", ("runs/fold_0",), mirror=True)
TWO = replace(ONE, digest="34cd")
FILE = Origin("a.nii.gz", "a", ONE, "7-1")


def write(folder: Path, origin: Origin, text: str) -> None:
    with recorded(folder, origin) as path:
        path.write_text(text, encoding="utf-8")


def test_the_last_line_on_a_file_counts(tmp_path: Path) -> None:
    assert (origins(tmp_path), makers(tmp_path)) == ({}, ())
    write(tmp_path / "out", FILE, "first")
    write(tmp_path / "out", replace(FILE, file="b.nii.gz"), "other")
    write(tmp_path / "out", replace(FILE, maker=TWO), "second")
    found = origins(tmp_path / "out")
    assert [(origin.maker.digest, origin.images) for origin in found.values()] == [("34cd", "7-1"), ("12ab", "7-1")]
    assert makers(tmp_path / "out") == (TWO, ONE)
    assert found["a.nii.gz"].is_unchanged(tmp_path / "out")
    (tmp_path / "out" / "a.nii.gz").write_text("by hand", encoding="utf-8")
    assert not found["a.nii.gz"].is_unchanged(tmp_path / "out")
    (tmp_path / "out" / "a.nii.gz").unlink()
    assert makers(tmp_path / "out") == (ONE,)


def test_a_file_that_was_not_finished_is_known_and_an_earlier_one_gone(tmp_path: Path) -> None:
    write(tmp_path, FILE, "first")

    def fail() -> None:
        with recorded(tmp_path, replace(FILE, maker=TWO)) as path:
            assert not path.exists()
            raise OSError("power")

    with pytest.raises(OSError, match="power"):
        fail()
    origin = origins(tmp_path)["a.nii.gz"]
    assert (origin.maker, origin.sha256) == (TWO, "")


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, FILE, "first")
    before = origins(tmp_path)
    with open(tmp_path / PREDICTED, "a", encoding="utf-8") as handle:
        handle.write('{"file": "b')
    assert origins(tmp_path) == before
    assert not caplog.text  # an interruption may have cut the last line
    with open(tmp_path / PREDICTED, "ab") as handle:
        handle.write(b'\n{"file": "a.nii.gz", "of_a_later_version": 1}\n\xff\x00\n' + b"[" * 100_000 + b"\n")
    assert origins(tmp_path) == before
    assert f"note: 4 lines cannot be read, so their files count as of unknown origin; {tmp_path / PREDICTED}" in caplog.text


def test_the_stamp_of_an_image_follows_its_files(tmp_path: Path) -> None:
    files = (tmp_path / "a_0000.nii", tmp_path / "a_0001.nii")
    case = Case("a", files, None)
    assert image_stamp(case) == ""
    for file in files:
        file.write_bytes(b"1")
        os.utime(file, ns=(5, 5))
    assert image_stamp(case) == "1-5 1-5"
    os.utime(files[1], ns=(5, 6))
    assert image_stamp(case) == "1-5 1-6"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    with pytest.raises(DiskError, match="cannot write"):
        write(tmp_path / "out", FILE, "")
