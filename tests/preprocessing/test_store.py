"""Prepared cases on disk: parts, completeness, foreground."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoseg.errors import DataError, ResourceError
from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.landmarks import State
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.store import StoredCase, remove_case, stored_key, stored_names, write_case

SHAPE = (20, 60, 70)


def _prepared(shape: tuple[int, int, int] = SHAPE, channels: int = 2, labelled: bool = True, dtype: type = np.uint8) -> Prepared:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((channels, *shape)).astype(np.float16)
    label = rng.choice([0, 0, 0, 1, 3], shape).astype(dtype) if labelled else None
    source = Grid.from_spacing((shape[2], shape[0] + 2, shape[1]), (0.3, 1 / 3, 0.7), (0.1, -2, 3))
    axes = AxisMap((1, 2, 0), (True, False, True))
    crop = Box((1, 0, 0), (shape[0] + 1, shape[1], shape[2]))
    return Prepared(image, label, Placement(source, axes, crop, source.reoriented(axes).crop(crop)))


def test_round_trip(tmp_path: Path) -> None:
    prepared = _prepared()
    write_case(tmp_path / "new", "a.b", prepared, "key 1")
    case = StoredCase.open(tmp_path / "new", "a.b")
    image, label = case.read()
    np.testing.assert_array_equal(image, prepared.image)
    np.testing.assert_array_equal(label, prepared.label)
    assert (image.dtype, label.dtype) == (np.float16, np.uint8)
    assert (case.shape, case.n_channels, case.has_label) == (SHAPE, 2, True)
    assert case.placement == prepared.placement  # bit for bit, through JSON
    assert stored_key(tmp_path / "new", "a.b") == "key 1"


def test_landmarks_are_stored(tmp_path: Path) -> None:
    points = np.array([[0.125, -3.5, 1e3 / 3], [np.nan] * 3, [np.nan] * 3])
    state = np.array([State.PRESENT, State.ABSENT, State.UNLABELLED])
    write_case(tmp_path, "a", replace(_prepared((3, 4, 5)), points=points, state=state), "k")
    case = StoredCase.open(tmp_path, "a")
    np.testing.assert_array_equal(case.points, points)  # bit for bit
    np.testing.assert_array_equal(case.state, state)
    assert case.landmarks_present == (0,)
    assert "NaN" not in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_record_without_landmark_fields(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (content.pop("landmark_states"), content.pop("landmark_points")) == ([], [])
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    case = StoredCase.open(tmp_path, "a")
    assert (case.points.shape, case.state.shape, case.landmarks_present) == ((0, 3), (0,), ())


def test_case_without_label(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared(labelled=False), "k")
    case = StoredCase.open(tmp_path, "a")
    assert case.read(Box((0, 0, 0), (1, 1, 1)))[1] is None
    assert case.classes_present == ()
    assert case.foreground(1).shape == (0, 3)


def test_box_may_reach_outside(tmp_path: Path) -> None:
    prepared = _prepared((2, 3, 4), channels=1)
    write_case(tmp_path, "a", prepared, "k")
    image, label = StoredCase.open(tmp_path, "a").read(Box((-1, 1, 2), (2, 5, 3)))
    assert image.shape == (1, 3, 4, 1)
    np.testing.assert_array_equal(image[0, 1:, :2], prepared.image[0, :, 1:, 2:3])
    assert not image[0, 0].any()
    assert not image[0, :, 2:].any()
    assert label is not None
    assert prepared.label is not None
    np.testing.assert_array_equal(label[1:, :2], prepared.label[:, 1:, 2:3])
    beyond, _ = StoredCase.open(tmp_path, "a").read(Box((5, 0, 0), (7, 3, 4)))
    assert beyond.shape == (1, 2, 3, 4)
    assert not beyond.any()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, StoredCase]:
    folder = tmp_path_factory.mktemp("store")
    prepared = _prepared()
    write_case(folder, "a", prepared, "k")
    return prepared, StoredCase.open(folder, "a")


spans = st.tuples(st.integers(-30, 90), st.integers(1, 80))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans, spans, spans)
def test_any_box_is_the_padded_crop(
    stored: tuple[Prepared, StoredCase], z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]
) -> None:
    prepared, case = stored
    assert prepared.label is not None
    box = Box((z[0], y[0], x[0]), (z[0] + z[1], y[0] + y[1], x[0] + x[1]))
    image, label = case.read(box)
    wide = 180
    shifted = tuple(slice(a + wide, b + wide) for a, b in zip(box.start, box.stop))
    np.testing.assert_array_equal(label, np.pad(prepared.label, wide)[shifted])
    np.testing.assert_array_equal(image[1], np.pad(prepared.image[1], wide)[shifted])


def test_many_threads_read_one_case(stored: tuple[Prepared, StoredCase]) -> None:
    prepared, case = stored
    boxes = [Box((0, i % 40, i % 50), (20, i % 40 + 20, i % 50 + 20)) for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        for box, (image, _) in zip(boxes, pool.map(case.read, boxes)):
            np.testing.assert_array_equal(image, prepared.image[(slice(None), *box.slices)])


def test_foreground_by_hand(tmp_path: Path) -> None:
    prepared = _prepared((2, 2, 3))
    label = np.array([[[0, 2, 1], [0, 0, 2]], [[255, 0, 0], [0, 1, 0]]], dtype=np.uint8)
    write_case(tmp_path, "a", Prepared(prepared.image, label, prepared.placement), "k")
    case = StoredCase.open(tmp_path, "a")
    assert case.classes_present == (1, 2)  # 255 means: not annotated
    assert case.voxel_counts == {1: 2, 2: 2}
    assert case.foreground(1).tolist() == [[0, 0, 2], [1, 1, 1]]
    assert case.foreground(2).tolist() == [[0, 0, 1], [0, 1, 2]]
    assert case.foreground(3).shape == (0, 3)


def test_large_structures_are_sampled(tmp_path: Path) -> None:
    shape = (12, 300, 400)
    image = np.zeros((1, *shape), dtype=np.float16)
    label = np.ones(shape, dtype=np.uint8)
    label[0, 0, :5] = 2
    grid = Grid.from_spacing(shape, (1, 1, 1))
    axes = AxisMap((0, 1, 2), (False,) * 3)
    prepared = Prepared(image, label, Placement(grid, axes, Box((0, 0, 0), shape), grid))
    for name in ("a", "b"):
        write_case(tmp_path, name, prepared, "k")
    voxels = StoredCase.open(tmp_path, "a").foreground(1)
    assert len(voxels) == len({tuple(v) for v in voxels.tolist()}) == 14_400  # 1 % of 1 439 995, rounded up
    assert (label[tuple(voxels.T)] == 1).all()
    assert voxels[:, 0].mean() == pytest.approx(5.5, abs=0.2)
    np.testing.assert_array_equal(voxels, StoredCase.open(tmp_path, "b").foreground(1))
    assert len(StoredCase.open(tmp_path, "a").foreground(2)) == 5
    assert np.load(tmp_path / "a.foreground.npy", allow_pickle=False).dtype == np.uint32


def test_uint16_labels(tmp_path: Path) -> None:
    prepared = _prepared((3, 4, 5), dtype=np.uint16)
    assert prepared.label is not None
    prepared.label[0, 0, 0] = 65535
    prepared.label[0, 0, 1] = 255
    write_case(tmp_path, "a", prepared, "k")
    case = StoredCase.open(tmp_path, "a")
    assert case.read()[1].dtype == np.uint16  # type: ignore[union-attr]
    assert case.classes_present == (1, 3, 255)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 3), (300, 2, 2), (9, 49, 97)])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    prepared = _prepared(shape, channels=3)
    write_case(tmp_path, "a", prepared, "k")
    np.testing.assert_array_equal(StoredCase.open(tmp_path, "a").read()[0], prepared.image)


def test_rewriting_replaces(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared(), "old")
    write_case(tmp_path, "a", _prepared((3, 4, 5), labelled=False), "new")
    assert stored_key(tmp_path, "a") == "new"
    assert StoredCase.open(tmp_path, "a").shape == (3, 4, 5)
    assert sorted(os.listdir(tmp_path)) == ["a.foreground.npy", "a.image.b2nd", "a.json"]


@pytest.mark.parametrize("ending", [".json", ".image.b2nd", ".label.b2nd", ".foreground.npy"])
def test_incomplete_is_absent(tmp_path: Path, ending: str) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    file = tmp_path / f"a{ending}"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert stored_key(tmp_path, "a") is None
    file.unlink()
    assert stored_key(tmp_path, "a") is None
    with pytest.raises(DataError, match="case a: not prepared, or only in part"):
        StoredCase.open(tmp_path, "a")
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "again")  # what is left does not stand in the way
    assert stored_key(tmp_path, "a") == "again"


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [0, 9, 9]},
        {"n_channels": -1},
        {"axis_order": [0, 0, 2]},
        {"crop_stop": [0, 0, 0]},
        {"classes": [{"index": 0, "voxels": 1, "kept": 1}]},
        {"classes": [{"index": 1, "voxels": 1, "kept": 2}]},
        {"landmark_states": [2]},
        {"landmark_states": [2], "landmark_points": [None]},
        {"landmark_states": [7], "landmark_points": [None]},
        {"target": {"shape": [1, 1, 1], "affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}},
        {"source": {"shape": [1, 1, 1], "affine": [[1e308, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}},
        {"source": {"shape": [1, 1, 1], "affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]}},
        {"source": {"shape": [1, 1, 1], "affine": [[0, 0, 0, 0]] * 4}},
        {"key": float("nan")},
        {"key": "\ud800"},
    ],
)
def test_a_marker_that_was_edited_makes_the_case_absent(tmp_path: Path, changes: dict[str, object]) -> None:
    write_case(tmp_path, "a", _prepared(), "key")
    marker = tmp_path / "a.json"
    assert stored_key(tmp_path, "a") == "key"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **changes}))
    assert stored_key(tmp_path, "a") is None
    with pytest.raises(DataError, match=r"case a: not prepared, or only in part; .*fix: autoseg preprocess"):
        StoredCase.open(tmp_path, "a")
    write_case(tmp_path, "a", _prepared(), "key")
    assert stored_key(tmp_path, "a") == "key"


def test_names(tmp_path: Path) -> None:
    assert stored_names(tmp_path / "nowhere") == ()
    for name in ("b", "a.json", "a"):
        write_case(tmp_path, name, _prepared((1, 2, 3)), "k")
    assert {"a", "a.json", "b"} == set(stored_names(tmp_path))


@pytest.mark.parametrize("absent", [".image.b2nd", ".label.b2nd", ".foreground.npy"])
def test_incomplete_case_is_listed_and_removed(tmp_path: Path, absent: str) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    (tmp_path / f"a{absent}").unlink()
    assert stored_names(tmp_path) == ("a",)
    remove_case(tmp_path, "a")
    assert os.listdir(tmp_path) == []


def test_foreign_files_are_neither_listed_nor_deleted(tmp_path: Path) -> None:
    foreign = {
        "holiday.json": "{}",
        "list.json": "[]",
        "sizes.json": '{"file_sizes": ["x"]}',
        "deep.json": "[" * 100_000,
        "notes.json.partial": "{",
        "photo.image.b2nd": "x",
        "photo.label.b2nd": "x",
        "photo.foreground.npy": "x",
        "latin.json": "",
    }
    for file, text in foreign.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "latin.json").write_bytes(b'{"file_sizes": "\xfc"}')
    (tmp_path / "folder.json").mkdir()
    write_case(tmp_path, "a", _prepared((1, 2, 3)), "k")
    assert stored_names(tmp_path) == ("a",)
    for name in ("a", *(file.split(".")[0] for file in (*foreign, "folder"))):
        remove_case(tmp_path, name)
    assert set(os.listdir(tmp_path)) == {*foreign, "folder.json"}


MADE = (1, 4, 5, 6)  # shape of the stored image that somebody has replaced


def _replaced(folder: Path, make: Callable[[Path], object]) -> StoredCase:
    """A prepared case that counts as complete, with another file in place of its image."""
    write_case(folder, "a", _prepared(MADE[1:], channels=1), "k")
    image, marker = folder / "a.image.b2nd", folder / "a.json"
    image.unlink()
    make(image)
    content = json.loads(marker.read_text(encoding="utf-8"))
    content["file_sizes"][".image.b2nd"] = image.stat().st_size
    del content["checksum"], content["file_checksums"]  # as of an earlier version; whoever means harm may make them fit, too
    marker.write_text(json.dumps(content), encoding="utf-8")
    assert stored_key(folder, "a") == "k"
    return StoredCase.open(folder, "a")


def _plain(path: Path, meta: dict | None = None, dtype: type = np.float16, shape: tuple[int, ...] = MADE) -> blosc2.NDArray:
    return blosc2.zeros(shape, dtype, urlpath=str(path), mode="w", meta=meta)


def _running(command: str) -> str:
    """Source of a function that blosc2 would make of a file: it needs no import to reach the shell."""
    shell = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['system']"
    return f"{shell}({command!r})\ndef evil(inputs, output, offset):\n    output[:] = 0\n"


def _lazy_function(path: Path, source: str) -> None:
    _plain(path.with_name("operand.b2nd"))
    operands = {"o0": "operand.b2nd"}
    _plain(path, {"LazyArray": 1})
    _noted(path, _LazyArray={"UDF": source, "operands": operands, "name": "evil"})


def test_code_in_a_stored_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    case = _replaced(tmp_path, lambda path: _lazy_function(path, _running(f"touch {trace}")))
    message = (
        r"the prepared case cannot be read; file: .*a\.image\.b2nd; found: a file with b2nd, LazyArray, further.*; fix: delete"
    )
    for read in (
        case.read,
        lambda: case.read(Box((0, 0, 0), (1, 1, 1))),
        StoredCase(tmp_path, "b", case.record, case).previous_prediction,
    ):
        with pytest.raises(DataError, match=message):
            read()
    assert not trace.exists()


def test_the_code_in_that_file_is_one_that_would_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    _lazy_function(tmp_path / "a.b2nd", _running(f"touch {trace}"))
    trusting = {"deserialize": "full"} if "deserialize" in inspect.signature(blosc2.open).parameters else {}
    blosc2.open(str(tmp_path / "a.b2nd"), mode="r", **trusting)
    assert trace.exists()


def _lazy_expression(path: Path) -> None:
    operand = _plain(path.with_name("operand.b2nd"))
    (operand + operand).save(urlpath=str(path))


def _noted(path: Path, **notes: object) -> None:
    """Adds metadata of variable length to a file."""
    array = blosc2.blosc2_ext.open(str(path), "a", 0)
    for key, value in notes.items():
        array.schunk.vlmeta[key] = value


def _with_note(path: Path) -> None:
    _plain(path)
    _noted(path, a=1)


def _zip(path: Path) -> None:
    with path.open("wb") as handle:
        np.savez(handle, a=1)


def _with_addresses(path: Path) -> None:
    _plain(path, dtype=np.int64)
    path.write_bytes(path.read_bytes().replace(b"<i8", b"|O8"))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "expression": (_lazy_expression, "found: a file with b2nd, (LazyArray|b2o), further metadata"),
    "proxy": (
        lambda path: _plain(path, {"proxy-source": {"local_abspath": "/etc/passwd", "urlpath": None, "caterva2_env": False}}),
        "found: a file with b2nd, proxy-source",
    ),
    "object": (lambda path: _plain(path, {"b2o": {"kind": "c2array", "version": 1}}), "found: a file with b2nd, b2o"),
    "list": (lambda path: _plain(path, {"vlarray": {}}), "found: a file with b2nd, vlarray"),
    "note": (_with_note, "found: a file with b2nd, further metadata"),
    "bytes": (lambda path: blosc2.SChunk(data=b"x" * 99, urlpath=str(path), mode="w"), "found: a file with bytes"),
    "addresses": (_with_addresses, r"found: object of 8 bytes, shape \(1, 4, 5, 6\); allowed: numbers"),
    "texts": (lambda path: _plain(path, dtype=np.dtype("U1")), "found: <U1 of 4 bytes"),
    "shape": (lambda path: _plain(path, shape=(1, 4, 5, 7)), r"found: .*\(1, 4, 5, 7\); allowed: numbers, shape \(1, 4, 5, 6\)"),
    "axes": (lambda path: _plain(path, shape=(120,)), r"found: float16 of 2 bytes, shape \(120,\)"),
    "zip": (_zip, "found: RuntimeError"),
    "text": (lambda path: path.write_text("x"), "found: RuntimeError"),
    "nothing": (lambda path: path.write_bytes(b""), "found: RuntimeError"),
}


@pytest.mark.parametrize(("make", "found"), FOREIGN.values(), ids=FOREIGN)
def test_only_plain_arrays_are_read(tmp_path: Path, make: Callable[[Path], object], found: str) -> None:
    message = rf"the prepared case cannot be read; file: .*a\.image\.b2nd; {found}.*; fix: delete the folder {tmp_path}, then"
    case = _replaced(tmp_path, make)
    with pytest.raises(DataError, match=message):
        case.read()


def test_a_damaged_foreground_names_its_file(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    case, file = StoredCase.open(tmp_path, "a"), tmp_path / "a.foreground.npy"
    objects, pickled = np.array([{}], dtype=object), tmp_path / "pickled.npy"
    np.save(pickled, objects, allow_pickle=True)
    outside = tmp_path / "outside.npy"
    np.save(outside, np.full(100, 10**6))
    for content in (pickled.read_bytes(), outside.read_bytes(), b"PK\x03\x04", file.read_bytes()[:-40], b""):
        file.write_bytes(content)
        with pytest.raises(
            DataError, match=r"cannot be read; file: .*a\.foreground\.npy; found: .*; fix: delete the folder .*, then"
        ):
            case.foreground(3)


def test_a_marker_claims_no_file_but_those_of_its_case(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for file in ("kept.txt", "store/a.txt", "store/a.image.b2nd"):
        (tmp_path / file).write_text("x")
    sizes = {"/../../kept.txt": 1, ".txt": 1, ".image.b2nd": 1}
    (tmp_path / "store" / "a.json").write_text(json.dumps({"file_sizes": sizes}))
    remove_case(tmp_path / "store", "a")
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["a.txt"]
    assert (tmp_path / "kept.txt").is_file()


@pytest.mark.parametrize("moment", range(4))
def test_removal_that_was_killed_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    unlink, calls = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        calls.append(path)
        if len(calls) > moment:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_case(tmp_path, "a")
    assert stored_key(tmp_path, "a") is None
    assert stored_names(tmp_path) == ("a",)
    remove_case(tmp_path, "a")
    assert os.listdir(tmp_path) == []


def test_links_in_the_folder_are_replaced_and_not_followed(tmp_path: Path) -> None:
    """A folder from elsewhere may hold links; what they lead to is not overwritten."""
    folder, victim = tmp_path / "prepared", tmp_path / "victim"
    write_case(folder, "a", _prepared((3, 4, 5)), "k")
    names = [path.name for path in folder.iterdir()]
    victim.write_text("of somebody else")
    for name in [*names, "a.json.partial"]:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(victim)
    write_case(folder, "a", _prepared((3, 4, 5)), "k")
    assert victim.read_text() == "of somebody else"
    assert stored_key(folder, "a") == "k"
    assert not any((folder / name).is_symlink() for name in names)


def test_case_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a case needs a name that can be a file's; file: .*; found: '\.\./a'; allowed: "):
        write_case(tmp_path / "store", "../a", _prepared((1, 2, 3)), "k")
    assert list(tmp_path.iterdir()) == []


def test_marker_is_plain_json(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "k")
    content = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (content["key"], content["shape"], content["n_channels"]) == ("k", [3, 4, 5], 2)


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="case a: cannot write the prepared case"):
        write_case(tmp_path / "file", "a", _prepared((1, 2, 3)), "k")


def test_killed_while_writing_leaves_whole_cases(tmp_path: Path) -> None:
    """A process rewrites one case for ever and is killed; what `stored_key` calls complete must read well."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from test_store import _prepared, write_case
        prepared = _prepared()
        print("ready", flush=True)
        for i in range(10**6):
            write_case(Path(sys.argv[2]), "a", prepared, str(i))
        """
    )
    for i in range(4):
        root = str(Path(__file__).parent)
        process = subprocess.Popen([sys.executable, "-c", program, root, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1 + 0.013 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if stored_key(tmp_path, "a") is not None:
            np.testing.assert_array_equal(StoredCase.open(tmp_path, "a").read()[0], _prepared().image)
        write_case(tmp_path, "a", _prepared(), "after")  # whatever was left does not stand in the way
        assert stored_key(tmp_path, "a") == "after"


@pytest.mark.parametrize("ending", [".image.b2nd", ".label.b2nd", ".foreground.npy"])
def test_a_changed_bit_is_noticed_when_a_process_first_reads_the_case(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    prepared = _prepared((6, 10, 12))
    for i, place in enumerate(rng.uniform(0, 1, 12)):
        write_case(tmp_path, f"c{i}", prepared, "key")
        path = tmp_path / f"c{i}{ending}"
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        case = StoredCase.open(tmp_path, f"c{i}")
        message = rf"cannot be read; file: .*c{i}{ending}; found: other bytes .*then autoseg preprocess"
        with pytest.raises(DataError, match=message):
            case.read()
        with pytest.raises(DataError, match=message):
            case.foreground(1)


def test_a_changed_record_counts_as_absent(tmp_path: Path) -> None:
    write_case(tmp_path, "a", _prepared((3, 4, 5)), "key")
    marker = tmp_path / "a.json"
    record = json.loads(marker.read_text())
    for change in ({"crop_start": [0, 0, 1]}, {"key": "other"}, {"checksum": 7}):
        marker.write_text(json.dumps({**record, **change}))
        assert stored_key(tmp_path, "a") is None
    older = {name: value for name, value in record.items() if "checksum" not in name}
    marker.write_text(json.dumps(older))  # of a version without checksums
    assert StoredCase.open(tmp_path, "a").read()[0].shape == (2, 3, 4, 5)
