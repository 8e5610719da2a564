from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoseg.dataset import Case, case_name, find_dataset, images_in, open_dataset, search_folders, split_other_channels
from autoseg.dataset.dataset_json import parse_description
from autoseg.errors import DataError, LabelError, UsageError
from autoseg.io import read_image, read_label_map

NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}}


def lay_out(root: Path, about: dict[str, Any] | None = None, files: tuple[str, ...] = ()) -> Path:
    """A dataset folder whose images are empty files: opening a dataset reads none."""
    root.mkdir(parents=True, exist_ok=True)
    if about is not None:
        (root / "dataset.json").write_text(json.dumps(about))
    for name in files:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    return root


def test_nnunet_layout(tmp_path: Path) -> None:
    files = ("imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/a_0000.nii.gz")
    about = {"channel_names": {"1": "PET", "0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 5}}
    root = lay_out(tmp_path / "Dataset007_X", about, (*files, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz"))
    dataset = open_dataset(root)
    assert (dataset.name, dataset.root, dataset.channels) == ("Dataset007_X", root, ("CT", "PET"))
    assert (dataset.labels.names, dataset.labels.values) == (("liver", "tumour"), (1, 5))
    a = Case("a", (root / "imagesTr/a_0000.nii.gz", root / "imagesTr/a_0001.nii.gz"), root / "labelsTr/a.nii.gz")
    assert dataset.cases[0] == a
    assert [c.name for c in dataset.cases] == ["a", "b"]


def test_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lay_out(tmp_path / "Task01_X", NNUNET, ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz")))
    assert open_dataset(Path()).name == "Task01_X"


def test_decathlon_layout(tmp_path: Path) -> None:
    about = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "2": "oedema", "1": "core"},
        "training": [
            {"image": "./imagesTr/p_2.nii.gz", "label": "./labelsTr/p_2.nii.gz"},
            {"image": "./imagesTr/p_1.nii.gz", "label": "./labelsTr/p_1.nii.gz"},
            {"image": "./imagesTr/p_3.nii.gz"},
        ],
    }
    dataset = open_dataset(lay_out(tmp_path / "Task01_X", about))
    assert dataset.channels == ("FLAIR", "T1w")
    assert (dataset.labels.names, dataset.labels.values) == (("core", "oedema"), (1, 2))
    assert [(c.name, c.images[0].name, c.label and c.label.name) for c in dataset.cases] == [
        ("p_1", "p_1.nii.gz", "p_1.nii.gz"),
        ("p_2", "p_2.nii.gz", "p_2.nii.gz"),
        ("p_3", "p_3.nii.gz", None),
    ]


def test_more_than_ten_channels_keep_their_order(tmp_path: Path) -> None:
    about = {**NNUNET, "channel_names": {str(i): f"c{i}" for i in range(11)}}
    root = lay_out(tmp_path / "x", about, tuple(f"imagesTr/a_{i:04d}.nii.gz" for i in range(11)))
    dataset = open_dataset(root)
    assert dataset.channels == tuple(f"c{i}" for i in range(11))
    assert [p.name for p in dataset.cases[0].images] == [f"a_{i:04d}.nii.gz" for i in range(11)]


def test_other_files_are_ignored(tmp_path: Path) -> None:
    junk = ("imagesTr/._a_0000.nii.gz", "imagesTr/_draft_0000.nii.gz", "imagesTr/.DS_Store", "imagesTr/notes.txt")
    labels = ("labelsTr/a.nii.gz", "labelsTr/._a.nii.gz")
    root = lay_out(tmp_path / "x", NNUNET, ("imagesTr/a_0000.nii.gz", *junk, *labels))
    (case,) = open_dataset(root).cases
    assert (case.name, case.label) == ("a", root / "labelsTr/a.nii.gz")


def test_unknown_channel_numbers_belong_to_the_name(tmp_path: Path) -> None:
    """One channel is named, so _0001 cannot be a second one: these are four scans."""
    files = tuple(f"imagesTr/scan_{i:04d}.nii.gz" for i in range(4))
    root = lay_out(tmp_path / "x", NNUNET, (*files, *(f.replace("images", "labels") for f in files)))
    cases = open_dataset(root).cases
    assert [c.name for c in cases] == ["scan_0000", "scan_0001", "scan_0002", "scan_0003"]
    assert all(c.label is not None and c.label.is_file() for c in cases)


def test_a_stray_image_among_channel_files(tmp_path: Path) -> None:
    """It is a case of its own, as are files with numbers past the channels; each fails by itself."""
    about = {**NNUNET, "channel_names": {"0": "CT", "1": "PET"}}
    names = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz", "c_0002.nii.gz", "preview.jpg")
    files = tuple(f"imagesTr/{name}" for name in (*names, "a.jpg"))
    root = lay_out(tmp_path / "x", about, (*files, "labelsTr/a.nii.gz", "labelsTr/c.nii.gz"))
    expected = {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "a.jpg": ["a.jpg"],  # another case than 'a'
        "b": ["b_0001.nii.gz"],
        **{f"c_000{i}": [f"c_000{i}.nii.gz"] for i in range(3)},
        "preview": ["preview.jpg"],
    }
    dataset = open_dataset(root)
    assert {c.name: [p.name for p in c.images] for c in dataset.cases} == expected
    assert dataset.cases[0].label == root / "labelsTr/a.nii.gz"
    assert {c.name: [p.name for p in c.images] for c in images_in(root / "imagesTr", 2)} == expected


@pytest.mark.parametrize(
    ("names", "n_channels"),
    [
        (("scan_0000.nii.gz", "scan_0001.nii.gz", "scan_0002.nii.gz"), 2),  # 4D files, numbered
        (("a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz"), 2),
    ],
)
def test_incomplete_channel_files_are_cases(tmp_path: Path, names: tuple[str, ...], n_channels: int) -> None:
    lay_out(tmp_path, None, tuple(f"new/{name}" for name in names))
    assert [(c.name, c.images) for c in images_in(tmp_path / "new", n_channels)] == [
        (name.removesuffix(".nii.gz"), (tmp_path / "new" / name,)) for name in names
    ]


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (("a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz"), ["a", "b", "c"]),
        (("a_0000.nii.gz", "a.mha", "b_0000.nii.gz"), ["a", "a_0000", "b"]),
        (("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c.nii.gz"), ["a_0000", "a_0001", "b_0000", "c"]),
    ],
)
def test_a_file_without_number_among_those_of_one_channel(tmp_path: Path, names: tuple[str, ...], cases: list[str]) -> None:
    lay_out(tmp_path, None, tuple(f"new/{name}" for name in names))
    images = images_in(tmp_path / "new", 1)
    assert sorted(c.name for c in images) == cases
    assert sorted(p.name for c in images for p in c.images) == sorted(names)


@pytest.mark.parametrize(
    ("names", "kept", "other"),
    [
        ("a_0000 a_0001 b_0000 c", "b c", "a_0000 a_0001"),
        ("a_0000 a_0001 b_0000 b_0001", "", "a_0000 a_0001 b_0000 b_0001"),
        ("a_0000 a_0001 b_0000 b", "b b_0000", "a_0000 a_0001"),
        ("a_0000 a_0001 b_0000 b_0001 b_0002", "a_0000 a_0001 b_0000 b_0001 b_0002", ""),  # frames
        ("a_0000 a_0001 a_0002 a_0003 a_0004", "a_0000 a_0001 a_0002 a_0003 a_0004", ""),
        ("a_0001 a_0002 b", "a_0001 a_0002 b", ""),
        ("a_0007 b", "a_0007 b", ""),
    ],
)
def test_files_of_other_channels(names: str, kept: str, other: str) -> None:
    cases = [Case(name, (Path(f"{name}.mha"),), None) for name in names.split()]
    rest, others = split_other_channels(cases)
    assert (sorted(c.name for c in rest), [c.name for c in others]) == (kept.split(), other.split())


def test_label_maps_in_other_formats_and_with_image_names(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", NNUNET, ("imagesTr/a_0000.nii.gz", "labelsTr/a.nrrd"))
    assert open_dataset(root).cases[0].label == root / "labelsTr/a.nrrd"
    root = lay_out(tmp_path / "y", NNUNET, ("imagesTr/a_0000.nii.gz", "labelsTr/a_0000.nii.gz"))
    assert open_dataset(root).cases[0].label == root / "labelsTr/a_0000.nii.gz"


def test_missing_label_maps_are_expected_by_name(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", NNUNET, ("imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz"))
    dataset = open_dataset(root)
    missing = dataset.cases[1].label
    assert missing == root / "labelsTr/b.nii.gz"
    assert missing is not None
    with pytest.raises(DataError, match=r"no such file; file: .*labelsTr.b\.nii\.gz"):
        read_label_map(missing, dataset.labels)


def test_ignored_voxels(tmp_path: Path) -> None:
    about = {**NNUNET, "labels": {"background": 0, "liver": 1, "ignore": 2}}
    labels = open_dataset(lay_out(tmp_path / "x", about, ("imagesTr/a_0000.nii.gz",))).labels
    assert (labels.names, labels.values, labels.ignore) == (("liver",), (1,), 2)


def test_byte_order_mark(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "x", None, ("imagesTr/a_0000.nii.gz",))
    (root / "dataset.json").write_text("\ufeff" + json.dumps(NNUNET), encoding="utf-8")
    assert len(open_dataset(root).cases) == 1


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([1], r"must hold one object; file: .*found: a list"),
        ({"labels": {}}, r"does not name the channels; file: .*dataset\.json; found: keys labels; fix: add"),
        ({"channel_names": ["CT"]}, r"does not name the channels"),
        ({**NNUNET, "channel_names": {"CT": "0"}}, r'channels are numbered from 0.*found: "CT"; allowed:'),
        ({"channel_names": {"0": "CT"}}, r"has no 'labels'; file: .*fix: add"),
        ({**NNUNET, "labels": ["liver"]}, r"has no 'labels'"),
        (
            {**NNUNET, "labels": {"background": 0, "whole": [1, 2], "core": 1}},
            r"\(regions\) are not supported.*found: whole; fix",
        ),
        ({**NNUNET, "labels": {"background": 255, "lesion": 0}}, r"value 0 is background.*found: background: 255, lesion: 0;"),
        ({**NNUNET, "labels": {"lung": 0, "organ": 1}}, r"value 0 is background, so no structure.*found: lung: 0; allowed"),
        ({**NNUNET, "labels": {"0": "lung", "1": "organ"}}, r"value 0 is background, so no structure.*found: lung: 0; allowed"),
        ({**NNUNET, "labels": {"background": 0, "liver": 1.0}}, r"must be whole numbers; file: .*found: liver: 1\.0"),
        (
            {**NNUNET, "labels": {"0.0": "background", "1.0": "liver"}},
            r'must be whole numbers.*found: 0\.0: "background", 1\.0: "liver"',
        ),
        ({**NNUNET, "labels": {"background": 0, "liver": "1"}}, r'must be whole numbers.*found: liver: "1"'),
        ({**NNUNET, "labels": {"background": 0, "liver": True}}, r"must be whole numbers.*found: liver: true"),
        ({**NNUNET, "training": ["a.nii.gz"]}, r'must list \{image, label\} pairs; file: .*found: "a\.nii\.gz" in training\[0\]'),
        ({**NNUNET, "training": [{"label": "a"}]}, r"'training' must list"),
        ({**NNUNET, "training": [{"image": "b/a\0.nii"}]}, r"a text in dataset\.json holds NUL or half a character"),
        (
            {**NNUNET, "training": [{"image": "b/a\x1b.nii"}]},
            r"'training\[0\]\.image' is no path; .*json; found: 'b/a\\x1b\.nii'",
        ),
        ({**NNUNET, "training": [{"image": "a" * 300}]}, r"'training\[0\]\.image' is no path; .*; allowed: up to 255 bytes"),
        ({**NNUNET, "training": [{"image": "/".join("ab" * 1500)}]}, r"'training\[0\]\.image' is no path"),
        ({**NNUNET, "training": 3}, r"'training' must be a list; file: .*found: 3"),
        ({**NNUNET, "training": [{"image": None}]}, r"'training\[0\]\.image' must name a file; .*found: null"),
        (
            {**NNUNET, "training": [{"image": "a.nii", "label": 3}]},
            r"'training\[0\]\.label' must name a file; .*found: 3; fix: leave",
        ),
        ({**NNUNET, "training": [{"image": "a.nii", "landmarks": [1]}]}, r"'training\[0\]\.landmarks' must name a file"),
        ({**NNUNET, "channel_names": {"0": None}}, r"a channel needs a name in dataset\.json; file: .*found: null"),
        ({**NNUNET, "channel_names": {"0": "C\nT"}}, r"a channel needs a name that can be read; file: .*found: 'C\\nT'"),
        ({**NNUNET, "channel_names": {"9" * 5000: "CT"}}, r'channels are numbered from 0.*found: "9+…'),
        (
            {**NNUNET, "labels": {"0": "background", "1": ["liver"]}},
            r'a structure needs a name in dataset\.json.*found: \["liver"\]',
        ),
        (
            {**NNUNET, "labels": {"background": 0, "\x1b[2J": 1}},
            r"a structure needs a name that can be read; .*found: '\\x1b\[2J'",
        ),
        (
            {**NNUNET, "labels": {"background": 0, "a" * 501: 1}},
            r"a structure needs a name that can be read; .*allowed: 1 to 500 char",
        ),
        ({**NNUNET, "labels": {"background": 0, "liver": 10**400}}, r"must be ascending integers; file: .*dataset\.json"),
        ({**NNUNET, "training": [{"image": ".."}]}, r"a case needs a name that can be a file's.*found: '\.\.'; allowed: 1 to"),
        ({**NNUNET, "training": [{"image": "a.nii.gz"}, {"image": "b/a.nii"}]}, r"two cases have the same name.*found: a"),
        (
            {**NNUNET, "labels": {"background": 0}},
            r"neither a structure besides background nor a landmark; file: .*dataset\.json",
        ),
        (NNUNET, r"no folder imagesTr; file: .*; found: dataset\.json"),
    ],
)
def test_malformed_datasets(tmp_path: Path, about: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(lay_out(tmp_path / "x", about))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "a": 1, "b": 1}, "label value used twice; file: .*; found: 1"),
        ({"0": "background", "1": "a", "2": "a"}, "label name used twice; file: .*; found: a"),
        ({"background": 0, "a": -1}, "must be ascending integers"),
    ],
)
def test_malformed_labels(tmp_path: Path, labels: dict, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        open_dataset(lay_out(tmp_path / "x", {**NNUNET, "labels": labels}))


def test_no_dataset_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset\.json; file: .*; fix: write one"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"dataset\.json is not valid JSON; file: .*found:"),
        (b'{"labels": {"liver": 1 /* left */}}', r"fix: delete the comment: JSON has none"),
        (b"\xff\xfe{}", r"dataset\.json is not UTF-8 text; file: .*found: UTF-16; fix: save it as UTF-8"),
        (b'{"labels": {"liver": 1, "liver": 2}}', r'dataset\.json has a duplicate key; file: .*found: "liver"; fix: '),
    ],
)
def test_invalid_json(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path)


def test_no_case(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training case; file: .*imagesTr; allowed: images ending in \.nii\.gz"):
        open_dataset(lay_out(tmp_path / "x", NNUNET, ("imagesTr/notes.txt",)))


def test_one_case_in_two_formats(tmp_path: Path) -> None:
    """Neither is silently preferred."""
    with pytest.raises(DataError, match=r"two images have the same name; file: .*imagesTr; found: a; fix: keep one"):
        open_dataset(lay_out(tmp_path / "x", NNUNET, ("imagesTr/a.nii.gz", "imagesTr/a.nrrd")))


@pytest.mark.parametrize(
    ("file", "name"),
    [("liver_3.nii.gz", "liver_3"), ("a.b.nrrd", "a.b"), ("A.NII.GZ", "A"), ("x.mhd", "x"), ("photo.png", "photo")],
)
def test_case_name(file: str, name: str) -> None:
    assert case_name(Path("folder") / file) == name


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in ("Task01_Brain", "Task010_Colon", "Dataset027_Heart", "mouse"):
        lay_out(tmp_path / "shelf" / name, NNUNET)
    lay_out(tmp_path / "shelf" / "Task02_NotADataset")
    return tmp_path / "shelf"


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Task01_Brain", "Task01_Brain"),
        ("Task01", "Task01_Brain"),
        ("1", "Task01_Brain"),
        ("01", "Task01_Brain"),
        ("10", "Task010_Colon"),
        ("27", "Dataset027_Heart"),
        ("027", "Dataset027_Heart"),
        ("Dataset027", "Dataset027_Heart"),
        ("mouse", "mouse"),
    ],
)
def test_find_dataset(shelf: Path, wanted: str, name: str) -> None:
    assert find_dataset(wanted, [shelf.parent / "nowhere", shelf, shelf]) == shelf.resolve() / name


def test_find_dataset_by_path(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_dataset(str(shelf / "mouse"), []) == shelf.resolve() / "mouse"
    monkeypatch.chdir(shelf)
    assert find_dataset("./mouse", []) == shelf.resolve() / "mouse"


def test_several_datasets_of_one_name(shelf: Path) -> None:
    lay_out(shelf.parent / "other" / "Dataset001_Lung", NNUNET)
    with pytest.raises(UsageError, match=r"'1' could be several datasets; found: .*Task01_Brain, .*Dataset001_Lung; fix: give"):
        find_dataset("1", [shelf, shelf.parent / "other"])


def test_no_such_dataset(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset 'Task09'; found: .*mouse.*; allowed: a path.*looked in .*shelf; fix: give"):
        find_dataset("Task09", [shelf])
    with pytest.raises(UsageError, match="no dataset '3'; found: no dataset at all"):
        find_dataset("3", [tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=r"no dataset 'Task\.\*'"):
        find_dataset("Task.*", [shelf])


def test_a_folder_that_is_not_a_dataset(shelf: Path) -> None:
    with pytest.raises(
        UsageError, match=r"the folder holds no dataset\.json, no cases.*; file: .*NotADataset; found: nothing; fix: point -d at"
    ):
        find_dataset(str(shelf / "Task02_NotADataset"), [shelf])


def test_search_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOSEG_DATA", raising=False)
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert search_folders() == [Path.cwd(), Path.cwd() / "data"]
    monkeypatch.setenv("AUTOSEG_DATA", "/a")
    monkeypatch.setenv("nnUNet_raw", "/b")
    assert search_folders()[2:] == [Path("/a"), Path("/b")]


def test_images_to_predict(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, None, ("new/b_0000.nrrd", "new/a_0000.nii.gz", "new/._a_0000.nii.gz", "new/readme.md")) / "new"
    assert images_in(folder, 1) == (
        Case("a", (folder / "a_0000.nii.gz",), None),
        Case("b", (folder / "b_0000.nrrd",), None),
    )
    assert images_in(folder / "b_0000.nrrd", 1) == (Case("b", (folder / "b_0000.nrrd",), None),)


def test_one_file_stands_for_all_channels_of_its_case(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, None, ("new/a_0000.nii.gz", "new/a_0001.nii.gz", "new/a_0002.nii.gz", "new/a.nii")) / "new"
    both = (folder / "a_0000.nii.gz", folder / "a_0001.nii.gz")
    assert images_in(both[0], 2) == images_in(both[1], 2) == (Case("a", both, None),)
    assert images_in(folder / "a_0002.nii.gz", 2) == (Case("a_0002", (folder / "a_0002.nii.gz",), None),)
    assert images_in(folder / "a.nii", 2) == (Case("a", (folder / "a.nii",), None),)


def test_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder; file: .*nowhere; fix: give a folder of images, or one image"):
        images_in(tmp_path / "nowhere", 1)
    with pytest.raises(UsageError, match=r"no image in the folder; file: .*; allowed: \.nii\.gz"):
        images_in(tmp_path, 1)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "n_cases", "channels", "last_label"),
    [
        ("Task04_Hippocampus", 208, ("MRI",), 2),
        ("mouse_brain", 20, ("MRI",), 40),
        ("brats2013", 6, ("FLAIR", "T1c"), 4),
    ],
)
def test_real_datasets(real_data: Callable[[str], Path], name: str, n_cases: int, channels: tuple, last_label: int) -> None:
    dataset = open_dataset(real_data(name))
    assert len(dataset.cases) == n_cases
    assert dataset.channels == channels
    assert len(dataset.labels.names) == dataset.labels.values[-1] == last_label
    for case in dataset.cases:
        assert all(p.is_file() for p in case.images)
        assert case.label is not None
        assert case.label.is_file()


@pytest.mark.real
@pytest.mark.parametrize(("name", "n_read"), [("Task04_Hippocampus", 10), ("mouse_brain", 2), ("brats2013", 1)])
def test_real_cases_can_be_read(real_data: Callable[[str], Path], name: str, n_read: int) -> None:
    dataset = open_dataset(real_data(name))
    for case in dataset.cases[:n_read]:
        image = read_image(case.images, dataset.channels)
        assert case.label is not None
        label = read_label_map(case.label, dataset.labels)
        assert label.data.shape == image.grid.shape
        assert label.grid.corner_distance(image.grid) < 0.5 * min(image.grid.spacing)
        assert 0 < label.data.max() < dataset.labels.n_classes


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 2500, "a\0b", "a\x1b[2Jb", "9" * 5000])
def test_a_name_that_can_be_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^the dataset is no path; found: '.*; allowed: up to 255 bytes between two slashes"):
        find_dataset(name, [tmp_path])


@pytest.mark.parametrize("name", ["~nobody-knows-me", "\udcff", "..", "*", "[", "١"])
def test_odd_names_are_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no dataset '|^the folder holds no dataset\.json"):
        find_dataset(name, [tmp_path, Path("~nobody-knows-me")])


def test_a_folder_that_may_not_be_looked_at_is_none(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file

    def refuse(self: Path) -> bool:
        if self.parent.name == "mouse":
            raise PermissionError(13, "Permission denied")
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert find_dataset("Task01", [shelf]).name.startswith("Task01")


@pytest.mark.parametrize("name", ["background", "Background", "BG", "clear label", "unlabelled", "void", "0"])
def test_names_of_the_background(name: str) -> None:
    labels = parse_description({**NNUNET, "labels": {name: 0, "liver": [1], "spleen": 2}}, Path("dataset.json")).labels
    assert (labels.names, labels.values) == (("liver", "spleen"), (1, 2))
