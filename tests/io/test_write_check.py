"""Files on a disk that gets full: whole under their name, or not there."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.limits import HANGS
from helpers.tiny import Tiny, TinyRuns

from autoseg.cli import app
from autoseg.dataset.predicted import PREDICTED
from autoseg.errors import DiskError, ResourceError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import read_image, read_label_map, write_image, write_label_map, write_probabilities
from autoseg.io.write_check import missing_end
from autoseg.nets.device import Device
from autoseg.system import files

LABELS = LabelSet(("a",), (1,))
SHAPES = ((1, 5, 7), (1, 60, 70), (3, 40, 50))
NUMBERS = (".nii", ".nii.gz", ".nrrd", ".mha", ".npy")
WHOLE_NUMBERS = (*NUMBERS, ".tif", ".png", ".bmp")


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As on a full disk: what goes beyond is not written, and the operating system says so, once, to who asks."""
    resource = pytest.importorskip("resource", reason="a limit on the size of files needs POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def writer(kind: str, ending: str, shape: tuple[int, int, int], folder: Path) -> Callable[[Path], None]:
    """What writes a label map, probabilities or an image; the same at each call."""
    rng, grid = np.random.default_rng(0), Grid.from_spacing(shape, (1, 1, 1))
    like = folder / f"like{ending if ending in NUMBERS else '.nii.gz'}"
    write_image(like, Image(rng.normal(size=(1, *shape)).astype(np.float32), grid, ("x",)))
    if kind == "label map":
        labels = LabelMap((rng.uniform(size=shape) > 0.5).astype(np.uint8), grid, LABELS)
        return lambda path: write_label_map(path, labels, like)
    if kind == "probabilities":
        shares = rng.uniform(size=(2, *shape)).astype(np.float32)
        return lambda path: write_probabilities(path, shares, like)
    image = Image(rng.normal(size=(2, *shape)).astype(np.float32), grid, ("x", "y"))
    return lambda path: write_image(path, image)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        *(("label map", e) for e in WHOLE_NUMBERS),
        *(("probabilities", e) for e in NUMBERS),
        *(("image", e) for e in (*NUMBERS, ".tif")),
    ],
)
def test_disk_full_at_any_byte_leaves_no_file(tmp_path: Path, kind: str, ending: str, shape: tuple[int, int, int]) -> None:
    if ending in (".png", ".bmp") and shape[0] > 1:
        pytest.skip("pictures have one slice")
    write, out = writer(kind, ending, shape, tmp_path), tmp_path / "out"
    path = out / f"a{ending}"
    write(path)
    whole = path.read_bytes()
    n = len(whole)
    for room in sorted({0, 1, 100, n // 4, n // 2, n - 4096, n - 100, n - 12, n - 8, n - 4, n - 1} & set(range(n))):
        path.unlink(missing_ok=True)
        with (
            files_of_at_most(room),
            pytest.raises(DiskError, match=rf"; file: {path}; found: .*; fix: free disk space") as caught,
        ):
            write(path)
        assert caught.value.exit_code == 3
        assert list(out.iterdir()) == []
    write(path)
    assert path.read_bytes() == whole


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write, path = writer("label map", ".nii", (3, 20, 30), tmp_path), tmp_path / "out" / "a.nii"
    path.parent.mkdir()
    path.write_bytes(b"by hand")
    with (
        files_of_at_most(1000),
        pytest.raises(DiskError, match=r"could not be written completely; file: .*a\.nii; found: .*; fix: free"),
    ):
        write(path)
    assert [p.read_bytes() for p in path.parent.iterdir()] == [b"by hand"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["label map", "probabilities"])
def test_a_library_that_says_nothing_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, kept: float, kind: str
) -> None:
    write, path = writer(kind, ending, (3, 20, 30), tmp_path), tmp_path / "out" / f"a{ending}"
    honest = sitk.WriteImage

    def silent(image: sitk.Image, name: str, **options: bool) -> None:
        honest(image, name, **options)
        os.truncate(name, int(kept * os.path.getsize(name)))

    monkeypatch.setattr(sitk, "WriteImage", silent)
    with pytest.raises(
        DiskError, match=rf"the image could not be written completely; file: .*a{ending}; found: .*byte.*; fix: free"
    ):
        write(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("ending", WHOLE_NUMBERS)
def test_a_disk_that_fails_at_last_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """A file system may take bytes and find later, when they are to be kept, that there is no room for them."""
    write, path = writer("label map", ending, (1, 20, 30), tmp_path), tmp_path / "out" / f"a{ending}"

    def fails(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(DiskError, match=rf"cannot write; file: .*a{ending}; found: No space left on device; fix: free disk"):
        write(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("ending", "data"), [(".mhd", "a.zraw"), (".nhdr", "a.raw.gz")])
@pytest.mark.parametrize("kind", ["label map", "image"])
def test_header_names_the_file_of_voxels_beside_it(tmp_path: Path, ending: str, data: str, kind: str) -> None:
    write, out = writer(kind, ending, (3, 40, 50), tmp_path), tmp_path / "out"
    write(out / f"a{ending}")
    write(out / f"a{ending}")  # over what is there
    assert {p.name for p in out.iterdir()} == {f"a{ending}", data}
    assert (out / f"a{ending}").read_text(encoding="ascii").rstrip().endswith(data)
    whole = {p.name: p.read_bytes() for p in out.iterdir()}
    for room in (0, 100, len(whole[data]) // 2, len(whole[data]) - 1):
        with files_of_at_most(room), pytest.raises(DiskError, match=rf"; file: .*a{ending}; found: .*; fix: free disk space"):
            write(out / f"a{ending}")
        assert {p.name: p.read_bytes() for p in out.iterdir()} == whole
    out.rename(tmp_path / "moved")
    assert sitk.ReadImage(str(tmp_path / "moved" / f"a{ending}")).GetSize() == (50, 40, 3)


@pytest.mark.parametrize(("ending", "data"), [(".mhd", "a.zraw"), (".nhdr", "a.raw.gz")])
@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.99])
def test_file_of_voxels_that_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, data: str, kept: float | None
) -> None:
    write, path = writer("label map", ending, (3, 20, 30), tmp_path), tmp_path / "out" / f"a{ending}"
    honest = sitk.WriteImage

    def silent(image: sitk.Image, name: str, **options: bool) -> None:
        honest(image, name, **options)
        voxels = Path(name).with_name(data)
        voxels.unlink() if kept is None else os.truncate(voxels, int(kept * voxels.stat().st_size))

    monkeypatch.setattr(sitk, "WriteImage", silent)
    with pytest.raises(DiskError, match=r"could not be written completely; file: .*; found: .*bytes.*; fix: free"):
        write(path)
    assert list(path.parent.iterdir()) == []


def test_write_error_with_free_disk_space_is_no_disk_error(tmp_path: Path) -> None:
    write = writer("image", ".nii", (1, 5, 7), tmp_path)
    with pytest.raises(ResourceError, match="the image cannot be written") as caught:
        write(tmp_path / "out" / "a.xyz")
    assert not isinstance(caught.value, DiskError)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_end_follows_the_announced_length(tmp_path: Path) -> None:
    def of(name: str, content: bytes, n_bytes: int = 5) -> str | None:
        (tmp_path / name).write_bytes(content)
        return missing_end(tmp_path / name, n_bytes)

    packed = gzip.compress(b"voxel")
    assert of("a.nii", b"voxel") is None
    assert of("a.nii", b"voxe") == "4 bytes instead of 5"
    assert of("a.nii.gz", packed) is None
    assert of("a.nii.gz", packed[:-1]) == f"{len(packed) - 1} bytes, the end of the compressed part is missing"
    assert of("a.nrrd", b"NRRD0004\n\n" + packed) is None
    for content in (b"", b"NRRD", b"NRRD0004\n\n", b"NRRD0004\n\n" + packed[:-1], b"NRRD0004\n\n\5\0\0\0"):
        assert of("a.nrrd", content) is not None
    head = b"NDims = 3\nCompressedDataSize = 4\nElementDataFile = LOCAL\n"
    assert of("a.mha", head + b"1234") is None
    assert of("a.mha", head + b"123") == f"{len(head) + 3} bytes instead of {len(head) + 4}"
    assert of("a.mha", b"ElementDataFile = LOCAL\nvoxel") is None
    assert of("a.mha", head[:20]) is not None
    assert of("a.xyz", b"voxel") == "5 bytes of an unknown kind"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system in memory of a size that may be changed, such as '24k'."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def of(size: str) -> Path:
        nonlocal mounted
        command = ["mount", "-t", "tmpfs", "-o", f"{'remount,' if mounted else ''}size={size}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=HANGS)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small file system cannot be mounted here: {error}")
        mounted = True
        return folder

    yield of
    if mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=HANGS)


def predictions_in(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, apart from the record of what made them, whose lines have an order of their own."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != PREDICTED}


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("probabilities", [False, True], ids=["masks", "probabilities"])
def test_prediction_resumes_after_a_full_disk(
    tiny: Tiny,
    tiny_runs: TinyRuns,
    float32_cpu: Device,
    small_disk: Callable[[str], Path],
    tmp_path: Path,
    ending: str,
    probabilities: bool,
) -> None:
    from typer.testing import CliRunner

    images = tmp_path / "images"
    for source in sorted((tiny.data / "imagesTs").iterdir()):
        image = read_image([source], ["MR"])
        rng = np.random.default_rng(0)  # noise, so that masks do not pack well
        noisy = Image(image.data + rng.normal(0, 200, image.data.shape).astype(np.float32), image.grid, image.channels)
        write_image(images / source.name.replace(".nii.gz", ending), noisy)
    words = ["predict", "-i", str(images), "-m", str(tiny_runs.runs[0]), "--device", "cpu", "--workers", "0"]
    words += ["--save_probabilities"] if probabilities else []
    assert CliRunner().invoke(app, [*words, "-o", str(tmp_path / "whole")], catch_exceptions=False).exit_code == 0
    whole = predictions_in(tmp_path / "whole")
    longest = max(map(len, whole.values()))
    assert len(whole) == (4 if probabilities else 2)

    out = small_disk(f"{max(longest // 1024 * len(whole) // 2, 4)}k") / "out"
    (out.parent / "filler").write_bytes(b"x" * (4096 if longest < 8192 else longest // 2))
    failed = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert isinstance(failed.exception, DiskError)
    assert failed.exception.exit_code == 3
    left = predictions_in(out) if out.is_dir() else {}
    assert left.items() <= whole.items()
    assert len(left) < len(whole)

    small_disk("32m")
    assert CliRunner().invoke(app, [*words, "-o", str(out)], catch_exceptions=False).exit_code == 0
    assert predictions_in(out) == whole
    for case in sorted(images.iterdir()):
        read_label_map(out / case.name.replace("_0000", ""), tiny.dataset.labels)
