"""Image and label map of a case, read together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.dataset import Dataset, open_dataset
from autoseg.dataset import reading as pairs
from autoseg.dataset.phantoms import make_phantoms
from autoseg.dataset.reading import CaseReader
from autoseg.errors import DataError, GeometryError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(make_phantoms(tmp_path / "Dataset001_Phantom", 3, 0, shape=(6, 12, 14)))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the image files that are opened."""
    names: list[str] = []
    original = pairs.read_image

    def spy(paths: tuple[Path, ...], channels: tuple[str, ...]) -> object:
        names.append(paths[0].name)
        return original(paths, channels)

    monkeypatch.setattr(pairs, "read_image", spy)
    return names


def test_kept_cases_are_returned_once_without_reading(dataset: Dataset, opened: list[str]) -> None:
    reader, case = CaseReader(dataset), dataset.cases[0]
    first = reader.read(case, keep=True)
    assert reader.read(case) is first
    assert len(opened) == 1
    again = reader.read(case)  # handed out before, so read anew
    assert len(opened) == 2
    np.testing.assert_array_equal(again.image.data, first.image.data)
    np.testing.assert_array_equal(again.label_map.data, first.label_map.data)


def test_no_more_is_kept_than_allowed(dataset: Dataset, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    size = CaseReader(dataset).read(dataset.cases[0]).nbytes
    assert size == 6 * 12 * 14 * (4 + 1)  # float32 image, uint8 label map
    monkeypatch.setattr(pairs, "KEEP_BYTES", 2 * size)
    reader = CaseReader(dataset)
    opened.clear()
    for _ in range(2):
        for case in dataset.cases:
            reader.read(case, keep=len(opened) < 3)
    assert len(opened) == 4  # the third did not fit and was read twice


def test_unusable_cases(dataset: Dataset, tmp_path: Path) -> None:
    reader, case = CaseReader(dataset), dataset.cases[0]
    with pytest.raises(DataError, match=f"case {case.name}: the case has no label file; fix: add one"):
        reader.read(replace(case, label=None))
    other = open_dataset(make_phantoms(tmp_path / "Dataset002_Phantom", 1, 0, shape=(6, 12, 16))).cases[0]
    with pytest.raises(GeometryError, match="differ in shape"):
        reader.read(replace(case, label=other.label))
