"""The landmarks of a case in world millimetres: coordinate systems, states, and what is wrong with
them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset import Case, Dataset, LandmarkRules, landmark_digest, load_landmarks, open_dataset, outside_remark
from autoseg.errors import DataError, GeometryError, LabelError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import Landmarks, LandmarkSet, State
from autoseg.io import read_grid, write_landmarks

TURN = np.array([[0.0, 0.6, 0.8], [0.0, -0.8, 0.6], [1.0, 0.0, 0.0]])
OBLIQUE = Grid((5, 6, 7), np.block([[TURN * [2.0, 1.0, 0.5], np.array([[10.0], [-20.0], [30.0]])], [np.array([[0, 0, 0, 1.0]])]]))
FLAT = Grid.from_spacing((1, 40, 30), (1, 1, 1))
PRESENT, ABSENT, UNLABELLED = State.PRESENT, State.ABSENT, State.UNLABELLED


def about(
    path: Path, names: tuple[str, ...], image: str = "a.nii.gz", rules: LandmarkRules | None = None
) -> tuple[Case, Dataset]:
    case = Case("a", (path.parent / image,), None, path)
    labels, landmarks = LabelSet((), ()), LandmarkSet(names)
    return case, Dataset("x", path.parent, ("CT",), labels, (case,), landmarks, rules or LandmarkRules())


def load(
    path: Path, names: tuple[str, ...], grid: Grid, image: str = "a.nii.gz", rules: LandmarkRules | None = None
) -> Landmarks:
    return load_landmarks(*about(path, names, image, rules), grid)


def remark(path: Path, names: tuple[str, ...], grid: Grid, image: str = "a.nii.gz") -> str:
    case, dataset = about(path, names, image)
    return outside_remark(case, load_landmarks(case, dataset, grid), grid)


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def table(path: Path, rows: str, head: str = "landmark,x,y,z,space") -> Path:
    return put(path / "a.csv", f"{head}\n{rows}\n")


def test_a_case_without_file_is_unlabelled() -> None:
    case = Case("a", (Path("a.nii"),), None)
    found = load_landmarks(case, Dataset("x", Path(), ("CT",), LabelSet((), ()), (case,), LandmarkSet(("n", "c"))), FLAT)
    assert (found.names, found.state.tolist(), found.confidence) == (("n", "c"), [UNLABELLED, UNLABELLED], None)
    assert np.isnan(found.points_mm).all()


def test_unlisted_landmarks_are_absent(tmp_path: Path) -> None:
    path = table(tmp_path, "c,12,-19,31,LPS,0.5\na,11,-20,31,LPS,", "landmark,x,y,z,space,confidence")
    found = load(path, ("a", "b", "c"), OBLIQUE)
    assert (found.names, found.state.tolist()) == (("a", "b", "c"), [PRESENT, ABSENT, PRESENT])
    np.testing.assert_array_equal(found.points_mm, [[11, -20, 31], [np.nan] * 3, [12, -19, 31]])
    assert found.confidence is not None
    np.testing.assert_array_equal(found.confidence, [np.nan, np.nan, 0.5])
    other = load(path, ("a", "b", "c"), OBLIQUE, rules=LandmarkRules((), UNLABELLED))
    assert other.state.tolist() == [PRESENT, UNLABELLED, PRESENT]


@pytest.mark.parametrize("space", ["LPS", "RAS", "voxel", ""])
def test_coordinate_systems(tmp_path: Path, space: str) -> None:
    """The same point in each, on a grid that is turned: columns along (0.4, 0.3, 0), rows along
    (0.6, -0.8, 0).
    """
    index, world = np.array([1.0, 2.5, 4.0]), np.array([10 + 1.5 + 1.6, -20 - 2 + 1.2, 32.0])
    np.testing.assert_allclose(OBLIQUE.index_to_world(index[None])[0], world)
    x, y, z = {"voxel": index[::-1], "RAS": world * [-1, -1, 1]}.get(space, world)
    found = load(table(tmp_path, f"a,{x},{y},{z},{space}"), ("a",), OBLIQUE)
    np.testing.assert_allclose(found.points_mm, [world])


def test_pixels_of_natural_images(tmp_path: Path) -> None:
    """x counts columns, y rows, from the centre of the first pixel."""
    found = load(table(tmp_path, "a,12.5,30", "landmark,x,y"), ("a",), FLAT, "a.png")
    np.testing.assert_array_equal(found.points_mm, [[12.5, 30, 0]])
    np.testing.assert_array_equal(FLAT.world_to_index(found.points_mm), [[0, 30, 12.5]])
    slicer = Landmarks(("a",), np.array([[12.5, 30, 0]]), np.array([PRESENT]))
    write_landmarks(tmp_path / "b.mrk.json", slicer)
    np.testing.assert_array_equal(load(tmp_path / "b.mrk.json", ("a",), FLAT, "a.png").points_mm, slicer.points_mm)


@pytest.mark.parametrize("space", ["LPS", "RAS", "voxel"])
def test_two_coordinates_in_a_slice(tmp_path: Path, space: str) -> None:
    """z follows from the plane of the slice, even of a tilted one."""
    affine = np.array([[0, 0.2, 2, 5], [0, 1, 0, -7], [3, 0.5, 0.25, 11], [0, 0, 0, 1.0]])
    grid = Grid((1, 8, 9), affine)
    world = grid.index_to_world(np.array([[0, 3.0, 4.5]]))[0]
    x, y = {"voxel": (4.5, 3.0), "RAS": (-world[0], -world[1])}.get(space, (world[0], world[1]))
    found = load(table(tmp_path, f"a,{x},{y},{space}", "landmark,x,y,space"), ("a",), grid)
    np.testing.assert_allclose(found.points_mm, [world])


def test_two_coordinates_where_three_are_needed(tmp_path: Path) -> None:
    path = table(tmp_path, "a,1,2,", "landmark,x,y,space")
    with pytest.raises(
        GeometryError, match=r"case a: landmark 'a' has two coordinates, but the image is a volume; .*in 5 slices; fix"
    ):
        load(path, ("a",), OBLIQUE)
    upright = Grid((1, 4, 4), np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]))
    with pytest.raises(GeometryError, match=r"case a: x and y of landmark 'a' do not say where it is.*upright; .*fix: give z"):
        load(path, ("a",), upright)


@settings(max_examples=30)
@given(st.sampled_from([".mrk.json", ".fcsv", ".json", ".csv"]), st.data())
def test_written_landmarks_are_read_back_on_any_grid(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    states = data.draw(st.lists(st.sampled_from(State), min_size=1, max_size=6).filter(lambda s: PRESENT in s))
    inside = st.tuples(*(st.floats(0, n - 1) for n in OBLIQUE.shape))
    at = np.array([data.draw(inside) if s == PRESENT else [np.nan] * 3 for s in states])
    before = Landmarks(tuple(f"p{i}" for i in range(len(states))), OBLIQUE.index_to_world(at), np.array(states))
    path = tmp_path_factory.mktemp("x") / f"a{ending}"
    write_landmarks(path, before)
    after = load(path, before.names, OBLIQUE)
    np.testing.assert_array_equal(after.points_mm, before.points_mm)
    expected = [ABSENT if ending == ".fcsv" and s == UNLABELLED else s for s in states]
    assert after.state.tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 200])
def test_number_of_landmarks(tmp_path: Path, n: int) -> None:
    names = tuple(f"p{i}" for i in range(n))
    many = Landmarks(names, OBLIQUE.index_to_world(np.linspace(0, 4, n)[:, None] * np.ones(3)), np.full(n, PRESENT))
    write_landmarks(tmp_path / "a.mrk.json", many)
    np.testing.assert_array_equal(load(tmp_path / "a.mrk.json", names, OBLIQUE).points_mm, many.points_mm)


def test_names_in_descriptions(tmp_path: Path) -> None:
    """Whichever of label and description the dataset knows."""
    rows = "1,11,-20,31,0,0,0,1,1,1,0,1,AC,\n2,12,-19,31,0,0,0,1,1,1,0,2,PC,\n"
    path = put(tmp_path / "a.fcsv", f"# CoordinateSystem = LPS\n{rows}")
    assert load(path, ("PC", "AC"), OBLIQUE).points_mm[:, 0].tolist() == [12, 11]
    assert load(path, ("1", "2"), OBLIQUE).points_mm[:, 0].tolist() == [11, 12]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "nose,1,2,3,\nnose,1,2,3,",
            r"case a: landmark listed twice; file: .*a\.csv; found: nose; fix: delete or rename one",
        ),
        (
            "nsoe,1,2,3,\nchin,1,2,3,",
            r"case a: the file names a landmark that the dataset does not have - did you mean 'nose'\?; .*found: nsoe; allo",
        ),
    ],
)
def test_unknown_and_duplicate_names(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        load(table(tmp_path, rows), ("nose", "chin"), OBLIQUE)


def test_landmarks_of_another_case(tmp_path: Path) -> None:
    path = table(tmp_path, "b,nose,1,2", "case,landmark,x,y")
    with pytest.raises(DataError, match=r"case a: the file has landmarks of other cases only; file: .*a\.csv; found: b"):
        load(path, ("nose",), FLAT)


def test_remark_on_points_outside(tmp_path: Path) -> None:
    grid = Grid.from_spacing((10, 10, 10), (2.0, 1.0, 0.5), (100, 100, 100))
    path = table(tmp_path, "edge,104.7,100,100,\nin,102,104,110,\nout,108.25,105,110,\ncorner,96.75,95.5,110,")
    names = ("edge", "in", "out", "corner")
    assert load(path, names, grid).present.all()
    assert remark(path, names, grid) == "landmarks outside the image: out (3.5 mm), corner (5.0 mm)"
    assert remark(table(tmp_path, "edge,104.7,100,100,\nin,102,104,110,"), names, grid) == ""


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        (
            "a,-102,-103,104,\nb,-101,-102,103,",
            "; all would lie inside with x and y negated, as if LPS and RAS were mistaken for each other",
        ),
        ("a,2,3,4,\nb,5,6,7,", "; all would lie inside if the numbers were voxels"),
        ("a,2,3,4,\nb,500,600,700,", ""),
    ],
)
def test_remark_guesses_the_coordinate_system(tmp_path: Path, rows: str, hint: str) -> None:
    grid = Grid.from_spacing((10, 10, 10), (1, 1, 1), (100, 100, 100))
    assert remark(table(tmp_path, rows), ("a", "b"), grid).endswith(f"mm){hint}")


def test_pixels_outside(tmp_path: Path) -> None:
    path = table(tmp_path, "a,31.5,3\nb,1,1", "landmark,x,y")
    assert remark(path, ("a", "b"), FLAT, "a.png") == "landmarks outside the image: a (2.0 px)"


def test_digest_of_the_landmarks_of_one_case(tmp_path: Path) -> None:
    def digest(rows: str, **rules: object) -> str:
        path = table(tmp_path, rows, "case,landmark,x,y,z")
        return landmark_digest(*about(path, ("p",), rules=LandmarkRules(**rules)))  # type: ignore[arg-type]

    first = digest("a,p,1,2,3\nb,p,4,5,6")
    assert digest("a,p,1,2,3\nb,p,4,5,66") == first
    assert digest("a,p,1,2,33\nb,p,4,5,6") != first
    assert digest("a,p,1,2,3\nb,p,4,5,6", unlisted=UNLABELLED) != first
    spot = np.zeros((8, 9, 10), np.uint8)
    spot[3, 4, 5] = 1
    one = landmark_digest(*about(spots(tmp_path / "a.nii.gz", spot), ("p",), rules=LandmarkRules((1,))))
    spot[3, 4, 6] = 1
    assert landmark_digest(*about(spots(tmp_path / "a.nii.gz", spot), ("p",), rules=LandmarkRules((1,)))) != one
    case, dataset = about(tmp_path / "a.csv", ("p",))
    assert landmark_digest(replace(case, landmarks=None), dataset) == ""


def spots(path: Path, array: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 1.0, 2.0))
    image.SetOrigin((10, 20, 30))
    sitk.WriteImage(image, str(path))
    return path


def test_spots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cubes as nnLandmark has them, one cut by the border, a single voxel, one in two parts."""
    array = np.zeros((8, 9, 10), np.uint8)
    array[2:5, 3:6, 4:7] = 1
    array[0:2, 0:2, 8:10] = 4
    array[7, 8, 0] = 9
    path = spots(tmp_path / "a.nii.gz", array)
    names, rules = ("cube", "cut", "none", "voxel"), LandmarkRules((1, 4, 5, 9))
    found = load(path, names, read_grid(path), rules=rules)
    assert found.state.tolist() == [PRESENT, PRESENT, ABSENT, PRESENT]
    np.testing.assert_allclose(found.points_mm[[0, 1, 3]], [[12.5, 24, 36], [14.25, 20.5, 31], [10, 28, 44]])
    array[7, 0, 0] = 1
    with caplog.at_level(logging.WARNING, "autoseg"):
        again = load(spots(path, array), names, read_grid(path), rules=rules)
    assert caplog.messages == ["note: case a: more than one spot, the largest counts: cube"]
    np.testing.assert_array_equal(again.points_mm, found.points_mm)
    with pytest.raises(
        LabelError, match=r"case a: .*values that no landmark has; .*found: 9; allowed: 1, 4; fix: correct the label"
    ):
        load(path, names[:2], read_grid(path), rules=LandmarkRules((1, 4)))


def test_spots_of_a_natural_image(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.pad(np.ones((3, 3), np.uint8), ((4, 33), (10, 17))))
    found = load(tmp_path / "a.npy", ("a",), FLAT, "a.png", LandmarkRules((1,)))
    np.testing.assert_array_equal(found.points_mm, [[11, 5, 0]])
    with pytest.raises(
        GeometryError, match=r"case a: image and landmarks differ in size; .*found: \(1, 40, 30\); allowed: \(5, 6, 7\)"
    ):
        load(tmp_path / "a.npy", ("a",), OBLIQUE, "a.png", LandmarkRules((1,)))


@pytest.mark.real
def test_mouse_skulls(real_data: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    """All points lie in the images, most on bone; in RAS they would not."""
    dataset = open_dataset(real_data("mouse_skull"))
    on_bone, flipped = [], []
    with caplog.at_level(logging.WARNING, "autoseg"):
        for case in dataset.cases:
            grid = read_grid(case.images[0])
            found = load_landmarks(case, dataset, grid)
            assert found.present.all()
            image = sitk.GetArrayFromImage(sitk.ReadImage(str(case.images[0])))
            for points, values in ((found.points_mm, on_bone), (found.points_mm * [-1, -1, 1], flipped)):
                index = np.clip(np.round(grid.world_to_index(points)).astype(int), 0, np.array(grid.shape) - 1)
                values.append(image[tuple(index.T)].mean())
    assert caplog.messages == []
    assert len(on_bone) == 41
    assert np.mean(on_bone) > 1.8 * np.mean(flipped)
    left, right = (found.names.index(name) for name in dataset.landmarks.pairs[0])
    assert dataset.landmarks.mirror_partners[left] == right


@pytest.mark.real
def test_skull_x_rays(real_data: Callable[[str], Path]) -> None:
    dataset = open_dataset(real_data("ceph"))
    states = []
    for case in dataset.cases:
        grid = read_grid(case.images[0])
        found = load_landmarks(case, dataset, grid)
        states += found.state.tolist()
        assert (grid.shape[0], found.points_mm.shape) == (1, (19, 3))
    assert (states.count(PRESENT), states.count(ABSENT)) == (602, 6)
    first = load_landmarks(dataset.cases[0], dataset, read_grid(dataset.cases[0].images[0]))
    np.testing.assert_array_equal(first.points_mm[0], [370.93, 601.63, 0])
