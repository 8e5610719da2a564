from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import Tiny

from autoseg.fingerprint.case import CaseFingerprint
from autoseg.fingerprint.dataset import load_fingerprint, take_fingerprint
from autoseg.fingerprint.grid_ceilings import FACTORS, _choose, dice_through_grid
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import LabelMap
from autoseg.imaging.labels import LabelSet

TWO = LabelSet(("block", "line"), (1, 2))


def label_map(shape: tuple[int, int, int] = (40, 40, 40), spacing: tuple[float, float, float] = (1, 1, 1)) -> LabelMap:
    """A block of 20 voxels, and a line of one voxel's thickness beside it."""
    data = np.zeros(shape, dtype=np.uint8)
    data[:, 10:30, 5:25] = 1
    data[:, 10:30, 30] = 2
    z, y, x = spacing
    return LabelMap(data, Grid(shape, np.array([[0, 0, x, 0], [0, y, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1.0]])), TWO)


def test_a_block_survives_a_coarse_grid_and_a_line_does_not() -> None:
    block, line = np.array([dice_through_grid(label_map(), factor, 3) for factor in FACTORS]).T
    assert block.min() > 0.8
    assert line[0] > 0.5  # 1.26 times as coarse
    assert line[-1] < 0.5  # five times


def test_dice_of_a_grid_of_the_same_resolution_is_one() -> None:
    np.testing.assert_array_equal(dice_through_grid(label_map(), 1.0, 3), [1, 1])


def test_thick_slices_stay_until_the_plane_is_as_coarse() -> None:
    """A line along y, one voxel wide along z and x: only what it loses along x counts while z stays."""
    thick = label_map((10, 40, 40), (4.0, 1.0, 1.0))
    thick.data[:] = 0
    thick.data[5, 10:30, 10:20] = 1
    fine, coarse = dice_through_grid(thick, 2.0, 3), dice_through_grid(thick, 5.0, 3)
    assert fine[0] > 0.9  # z is not touched: a slice stays a slice
    assert coarse[0] < fine[0]
    assert np.isnan(fine[1])  # there is no line


def test_a_picture_has_no_spacing_across() -> None:
    picture = label_map((1, 40, 40), (0.1, 1.0, 1.0))
    assert dice_through_grid(picture, 4.0, 3)[0] < 1  # in the plane it is coarser, whatever the slice's thickness says


def test_what_is_to_be_ignored_is_no_structure() -> None:
    marked = label_map()
    marked.data[0] = 255
    assert dice_through_grid(marked, 2.0, 3).shape == (2,)


def case(name: str, *voxels: int, edge: int = 10) -> CaseFingerprint:
    return CaseFingerprint(name, "", (1, 1, 1), (edge,) * 3, (edge,) * 3, voxels, (), (), (), "")


def test_the_chosen_cases_show_all_structures() -> None:
    cases = [case("a", 9, 0, 0), case("b", 9, 0, 0), case("c", 9, 5, 0), case("d", 0, 0, 1), case("e", 9, 0, 0)]
    assert _choose(cases) == ["c", "d", "a"]
    assert _choose([case("empty", 0, 0, 0)]) == []
    assert _choose([case("without a label map")]) == []


def test_one_large_case_is_enough() -> None:
    assert _choose([case("a", 9, edge=400), case("b", 9, edge=400)]) == ["a"]


def test_ceilings_are_measured_once(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = take_fingerprint(tiny.dataset, tmp_path / "work").fingerprint.ceilings
    assert [c.factor for c in measured] == list(FACTORS)
    assert all(0 < c.mean <= 1 for c in measured)
    assert load_fingerprint(tmp_path / "work" / "fingerprint.json").ceilings == measured

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("autoseg.fingerprint.dataset.measure_ceilings", never)
    assert take_fingerprint(tiny.dataset, tmp_path / "work").fingerprint.ceilings == measured
    (tmp_path / "work" / "fingerprint.json").write_text("{")
    with pytest.raises(AssertionError, match="measured again"):
        take_fingerprint(tiny.dataset, tmp_path / "work")
