"""Two folders of images and label maps without a dataset.json: what it would say is taken from the
files.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Pillow

from autoseg.dataset import Case, find_dataset, images_in, open_dataset, output_path, probabilities_path
from autoseg.errors import DataError, LabelError, UsageError
from autoseg.io import read_image, read_label_map
from autoseg.pipeline.workspace import Workspace

GREY = np.arange(1, 64, dtype=np.uint8).reshape(7, 9)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], axis=-1)
LABEL = np.zeros((7, 9), np.uint8)
LABEL[1:4, 2:5], LABEL[5:, 6:] = 1, 4


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.name.endswith((".nii.gz", ".nrrd")):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    else:
        Pillow.fromarray(array).save(path)
    return path


def flat(root: Path, image: np.ndarray = GREY, label: np.ndarray = LABEL, ending: str = ".png", names: str = "ab") -> Path:
    for name in names:
        put(root / "images" / f"{name}{ending}", image)
        put(root / "labels" / f"{name}{'.png' if ending == '.jpg' else ending}", label)
    return root


@pytest.mark.parametrize("folders", [("images", "labels"), ("imagesTr", "labelsTr"), ("images", "masks")])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".npy", ".nii.gz", ".nrrd"])
def test_two_folders_are_a_dataset(tmp_path: Path, folders: tuple[str, str], ending: str) -> None:
    root = flat(tmp_path / "x", ending=ending)
    for old, new in zip(("images", "labels"), folders):
        (root / old).rename(root / new)
    dataset = open_dataset(root)
    assert (dataset.name, dataset.root, dataset.channels) == ("x", root, ("image",))
    assert (dataset.labels.names, dataset.labels.values, dataset.labels.ignore) == (("structure 1", "structure 4"), (1, 4), None)
    labels = ".png" if ending == ".jpg" else ending
    expected = [Case(n, (root / folders[0] / f"{n}{ending}",), root / folders[1] / f"{n}{labels}") for n in "ab"]
    assert list(dataset.cases) == expected
    for case in dataset.cases:
        assert case.label is not None
        np.testing.assert_array_equal(read_label_map(case.label, dataset.labels).data[0], np.array([0, 1, 0, 0, 2])[LABEL])
        assert output_path(tmp_path, case).name == f"{case.name}{labels}"
        natural = ending not in (".nii.gz", ".nrrd")
        assert probabilities_path(tmp_path, case).name == f"{case.name}_probabilities{'.npy' if natural else ending}"


def test_dataset_json_beside_two_folders(tmp_path: Path) -> None:
    root = flat(tmp_path / "x")
    (root / "dataset.json").write_text('{"channel_names": {"0": "X-ray"}, "labels": {"background": 0, "rib": 1, "spine": 4}}')
    dataset = open_dataset(root)
    assert (dataset.channels, dataset.labels.names, len(dataset.cases)) == (("X-ray",), ("rib", "spine"), 2)


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        ((GREY, GREY), ("image",)),
        ((COLOUR, COLOUR), ("rgb_to_0_1",) * 3),
        ((GREY, COLOUR), ("rgb_to_0_1",) * 3),
        ((COLOUR, GREY), ("rgb_to_0_1",) * 3),
        ((COLOUR, GREY.astype(np.uint16)), ("red", "green", "blue")),
    ],
)
def test_channels_by_all_images(tmp_path: Path, images: tuple[np.ndarray, ...], channels: tuple[str, ...]) -> None:
    """One image in colour makes the dataset one in colour, wherever it stands; 16 bit forbid
    division by 255.
    """
    root = flat(tmp_path / "x")
    for name, image in zip("ab", images):
        put(root / "images" / f"{name}.png", image)
    dataset = open_dataset(root)
    assert dataset.channels == channels
    for case in dataset.cases:
        assert read_image(case.images, dataset.channels).data.shape == (len(channels), 1, 7, 9)


def test_channels_of_arrays(tmp_path: Path) -> None:
    root = flat(tmp_path / "x", np.stack([GREY[None]] * 3), LABEL[None], ".npy")
    dataset = open_dataset(root)
    assert dataset.channels == ("image 1", "image 2", "image 3")
    assert read_image(dataset.cases[0].images, dataset.channels).data.shape == (3, 1, 7, 9)


def test_channel_files(tmp_path: Path) -> None:
    """Numbers behind the names are channels where the label maps lack them."""
    root = tmp_path / "x"
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        put(root / "images" / f"{name}.png", GREY)
    for name in "ab":
        put(root / "labels" / f"{name}.png", LABEL)
    dataset = open_dataset(root)
    assert dataset.channels == ("image 1", "image 2")
    images = root / "images"
    assert [c.images for c in dataset.cases] == [(images / f"{n}_0000.png", images / f"{n}_0001.png") for n in "ab"]


def test_numbers_shared_with_label_maps_belong_to_names(tmp_path: Path) -> None:
    root = tmp_path / "x"
    for name in ("scan_0000", "scan_0001", "scan_0002"):
        put(root / "images" / f"{name}.png", GREY)
        put(root / "labels" / f"{name}.png", LABEL)
    assert [c.name for c in open_dataset(root).cases] == ["scan_0000", "scan_0001", "scan_0002"]


def test_colour_images_named_by_nnunet(tmp_path: Path) -> None:
    root = tmp_path / "Dataset120_Roads"
    for name, image in zip("ab", (COLOUR, GREY)):
        put(root / "imagesTr" / f"{name}_0000.png", image)
        put(root / "labelsTr" / f"{name}.png", LABEL)
    channels = '{"0": "R", "1": "G", "2": "B"}'
    (root / "dataset.json").write_text(
        f'{{"channel_names": {channels}, "labels": {{"background": 0, "road": 1, "sign": 4}}, "file_ending": ".png"}}'
    )
    dataset = open_dataset(root)
    assert [(c.name, [p.name for p in c.images]) for c in dataset.cases] == [("a", ["a_0000.png"]), ("b", ["b_0000.png"])]
    assert [c.label for c in dataset.cases] == [root / "labelsTr" / "a.png", root / "labelsTr" / "b.png"]
    colour, grey = (read_image(c.images, dataset.channels) for c in dataset.cases)
    np.testing.assert_array_equal(colour.data[:, 0], np.moveaxis(COLOUR, -1, 0))
    np.testing.assert_array_equal(grey.data[:, 0], np.stack([GREY] * 3))
    assert images_in(root / "imagesTr", 3)[0] == Case("a", (root / "imagesTr" / "a_0000.png",), None)


def test_a_mask_of_0_and_255_is_one_structure(tmp_path: Path) -> None:
    dataset = open_dataset(flat(tmp_path / "x", label=255 * (LABEL > 0).astype(np.uint8)))
    assert (dataset.labels.names, dataset.labels.values) == (("structure 255",), (255,))
    assert dataset.cases[0].label is not None
    assert read_label_map(dataset.cases[0].label, dataset.labels).data.max() == 1


def smooth_mask(levels: int = 256) -> np.ndarray:
    """A disc whose border fades over eight pixels, in so many levels."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.clip((20 - np.hypot(y, x)) / 8 + 0.5, 0, 1)
    return (np.round(disc * (levels - 1)) * (255 // (levels - 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (np.tile(np.arange(256, dtype=np.uint8), (64, 1)), r"255 values from 1 to 255"),
        (np.tile(np.arange(256, dtype=np.uint8), (64, 1)).T, r"255 values from 1 to 255"),
        (smooth_mask(), r"\d+ values from \d+ to 255"),
        (smooth_mask(18), r"17 values, of which most stand alone \(\d+ % have equal neighbours\)"),
    ],
)
@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_smooth_borders_are_not_structures(tmp_path: Path, label: np.ndarray, found: str, ending: str) -> None:
    root = flat(tmp_path / "x", np.ones_like(label), label, ending)
    message = r"no label map can be used; file: .*x; found: 2 faulty, the first: this looks like an image or a mask with smoothed"
    with pytest.raises(DataError, match=rf"{message}.*labels.a\.(png|npy); found: {found}; allowed: one value.*without anti-al"):
        open_dataset(root)


def test_many_structures_in_a_volume(tmp_path: Path) -> None:
    """An atlas has more than a hundred; what tells it from an image is that its regions are solid."""
    atlas = np.kron(np.arange(144, dtype=np.uint16).reshape(1, 12, 12), np.ones((3, 4, 4), np.uint16))
    assert len(open_dataset(flat(tmp_path / "x", atlas + 1, atlas, ".nii.gz")).labels.values) == 143
    noise = np.random.default_rng(0).integers(0, 144, (3, 48, 48)).astype(np.uint16)
    with pytest.raises(DataError, match=r"no label map can be used.*most stand alone"):
        open_dataset(flat(tmp_path / "y", atlas + 1, noise, ".nii.gz"))


def test_numbered_objects_are_not_structures(tmp_path: Path) -> None:
    """Cells numbered one by one: few numbers in each label map, too many in all of them."""
    root = flat(tmp_path / "x", np.full((8, 48), 7, np.uint8), names="abcdefg")
    for i, name in enumerate("abcdefg"):
        cells = np.kron(np.arange(12 * i, 12 * i + 12, dtype=np.uint8), np.ones((8, 4), np.uint8))
        put(root / "labels" / f"{name}.png", cells)
    with pytest.raises(
        DataError,
        match=r"too many values to be structures; file: .*x; found: 83 values from 1 to 83; allowed: up to 50.*fix: if",
    ):
        open_dataset(root)


def test_a_faulty_label_map_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = flat(tmp_path / "x", names="abcdef")
    put(root / "labels" / "c.png", smooth_mask())
    (root / "labels" / "d.png").write_text("broken")
    stray = LABEL.copy()
    stray[0, 0] = 128
    put(root / "labels" / "e.png", stray)
    with caplog.at_level(logging.WARNING, "autoseg"):
        dataset = open_dataset(root)
    assert dataset.labels.values == (1, 4, 128)
    assert len(dataset.cases) == 6
    assert "note: no dataset.json: structures are the values in 4 label maps: 1, 4, 128" in caplog.messages
    assert any("2 label maps cannot be used, the first: this looks like an image" in m for m in caplog.messages)
    put(root / "labels" / "d.png", LABEL)
    with caplog.at_level(logging.WARNING, "autoseg"):
        open_dataset(root)
    assert "note: in a single label map only: value 128; an annotation error?" in caplog.messages
    with pytest.raises(LabelError, match=r"values that no structure has.*\(this looks like an image"):
        read_label_map(root / "labels" / "c.png", dataset.labels)


def test_a_label_map_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is faulty for now; the next time it is read again."""
    from autoseg.dataset import without_json as inferred

    root, memory = flat(tmp_path / "x", names="abc"), Workspace(tmp_path / "work").label_values("x")
    put(root / "labels" / "b.png", 2 * LABEL)
    whole = inferred.read_label_values

    def read(path: Path) -> np.ndarray:
        if path.name == "b.png":
            raise MemoryError("8 GB")
        return whole(path)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "autoseg"):
        patched.setattr(inferred, "read_label_values", read)
        dataset = open_dataset(root, memory)
    assert (dataset.labels.values, [c.name for c in dataset.cases]) == ((1, 4), ["a", "b", "c"])
    assert any("1 label map cannot be used, the first: case b: out of memory; found: 8 GB" in m for m in caplog.messages)
    assert open_dataset(root, memory).labels.values == (1, 2, 4, 8)


def test_label_maps_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, memory = flat(tmp_path / "x"), Workspace(tmp_path / "work").label_values("x")
    assert memory.parent == Workspace(tmp_path / "work").dataset_folder("x")
    first = open_dataset(root, memory)
    read: list[str] = []
    from autoseg.dataset import without_json as inferred

    whole = inferred.read_label_values
    monkeypatch.setattr(inferred, "read_label_values", lambda path: read.append(path.name) or whole(path))
    assert open_dataset(root, memory) == first
    assert read == []
    changed = LABEL.copy()
    changed[0, 0] = 9
    put(root / "labels" / "b.png", changed)
    assert open_dataset(root, memory).labels.values == (1, 4, 9)
    assert read == ["b.png"]
    memory.write_text("{}")  # of another version, or damaged
    assert open_dataset(root, memory).labels.values == (1, 4, 9)
    assert sorted(read) == ["a.png", "b.png", "b.png"]
    for values in ([1, 70000], [4, 1], [-1, 4]):
        memory.write_text(re.sub(r'"values": \[[^]]*\]', f'"values": {values}', memory.read_text()))
        assert open_dataset(root, memory).labels.values == (1, 4, 9)


def test_nothing_but_background(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label map contains a structure; file: .*; found: only background in 2 label maps"):
        open_dataset(flat(tmp_path / "x", label=0 * LABEL))


def test_label_maps_with_other_names(tmp_path: Path) -> None:
    root = flat(tmp_path / "x")
    for name in "ab":
        (root / "labels" / f"{name}.png").rename(root / "labels" / f"mask of {name}.png")
    with pytest.raises(
        DataError, match=r"no case has a label map; .*found: 2 images, the first a\.png; allowed: .*labels.a\.png; fix: name each"
    ):
        open_dataset(root)


def test_label_maps_as_jpg(tmp_path: Path) -> None:
    root = flat(tmp_path / "x")
    for name in "ab":
        (root / "labels" / f"{name}.png").unlink()
        put(root / "labels" / f"{name}.jpg", LABEL)
    with pytest.raises(DataError, match=r"no label map can be used.*the first: a label map cannot be a JPG"):
        open_dataset(root)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    root = flat(tmp_path / "x")
    (root / "images" / "a.png").write_text("broken")
    assert open_dataset(root).channels == ("image",)  # the other one says so
    (root / "images" / "b.png").write_text("broken")
    with pytest.raises(DataError, match=r"no image can be read; found: 2 faulty, the first: .*a\.png; found: cannot identify"):
        open_dataset(root)


def test_two_label_maps_of_one_name(tmp_path: Path) -> None:
    root = flat(tmp_path / "x")
    put(root / "labels" / "a.tif", LABEL)
    with pytest.raises(DataError, match=r"two label maps have the same name; file: .*labels; found: a; fix: keep one"):
        open_dataset(root)


def test_empty_folders(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / "x" / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"no training case; file: .*x.images; allowed: images ending in"):
        open_dataset(tmp_path / "x")


def test_find_dataset_without_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = flat(tmp_path / "cells")
    assert find_dataset(str(root), []) == find_dataset("cells", [tmp_path]) == root.resolve()
    (root / "labels").rename(root / "annotation")
    with pytest.raises(UsageError, match=r"no cases\.csv and no pair of folders.*found: annotation, images; fix: point -d at"):
        find_dataset(str(root), [])


@pytest.mark.real
def test_nuclei(real_data: Callable[[str], Path]) -> None:
    dataset = open_dataset(real_data("nuclei"))
    assert (len(dataset.cases), dataset.channels) == (120, ("rgb_to_0_1",) * 3)
    assert dataset.labels.values == (1, 2)


@pytest.mark.real
def test_brain_slices(real_data: Callable[[str], Path]) -> None:
    """69 structures, of which each slice shows some, in 2D NIfTI."""
    dataset = open_dataset(real_data("brain_slices_2d"))
    assert (len(dataset.cases), dataset.channels) == (20, ("image",))
    assert dataset.labels.values == tuple(range(1, 70))
    case = dataset.cases[0]
    assert case.label is not None
    assert read_label_map(case.label, dataset.labels).data.shape == read_image(case.images, ("image",)).grid.shape
