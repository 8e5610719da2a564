"""Files are read whole or refused: lengths, checksums and headers that do not agree with what follows them."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image as Pillow

from autoseg.errors import AutosegError, DataError, ResourceError
from autoseg.io import data_files, read_grid, read_header, read_image
from autoseg.io import stored_voxels as stored_module
from autoseg.io.nifti_header import read_nifti_header

SHAPE = (5, 12, 14)


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def write(path: Path, compressed: bool = True, kind: str = "i2") -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(voxels().astype(kind)), str(path), useCompression=compressed)
    return path


def read(path: Path) -> np.ndarray:
    return read_image([path], ["x"]).data[0]


def read_if_whole(path: Path) -> np.ndarray | None:
    """The voxels, or None where the file is refused by its name."""
    try:
        return read(path)
    except DataError as error:
        return None if error.file == str(path) else voxels() - 1


def edit(path: Path, change: Callable[[bytearray], None]) -> Path:
    """Change the content of a file, of what is unpacked where it is packed."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    change(content)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def put(form: str, place: int, *values: float) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(form, content, place, *values)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "float.nii.gz"])
def test_a_single_flipped_bit_of_compressed_voxels_is_noticed(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, kind="f4" if name.startswith("float") else "i2")
    whole, good = path.read_bytes(), read(path)
    rng = np.random.default_rng(1)
    start = 20 if name.endswith(".nii.gz") else whole.index(b"\n\n") if name.endswith("nrrd") else whole.index(b"LOCAL\n")
    for place in rng.integers(start + 8, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        values = read_if_whole(path)
        if values is not None:  # what the bit changes is no voxel: the name or time in gzip's header
            np.testing.assert_array_equal(values, good)


@pytest.mark.parametrize(
    "name", ["a.nii.gz", "a.nii", "a.nrrd", "raw.nrrd", "a.mha", "raw.mha", "a.png", "a.bmp", "a.tif", "a.npy"]
)
def test_a_file_that_breaks_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith((".png", ".bmp")):
        Pillow.fromarray(voxels()[0].astype(np.uint8)).save(path)
    elif name.endswith(".tif"):
        tifffile.imwrite(path, voxels(), photometric="minisblack", compression="zlib")
    elif name.endswith(".npy"):
        np.save(path, voxels())
    else:
        write(path, not name.startswith("raw") and name != "a.nii")
    whole, good = path.read_bytes(), read(path)
    for n_bytes in np.unique(np.linspace(0, len(whole) - 1, 40).astype(int)):
        path.write_bytes(whole[:n_bytes])
        values = read_if_whole(path)
        if values is not None:  # what is lost is no voxel: the end mark of a PNG
            np.testing.assert_array_equal(values, good)
            assert n_bytes > len(whole) - 30


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_what_follows_the_end_is_ignored(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, name != "a.nii")
    good = read(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    np.testing.assert_array_equal(read(path), good)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("<h", 40, 9), "sizes that no image has"),
        (put("<h", 40, 0), "sizes that no image has"),
        (put("<h", 42, -14), "sizes that no image has"),
        (put("<h", 46, 0), "sizes that no image has"),
        (put("<h", 46, 30000), "the file is truncated"),
        (put("<h", 70, 16), "another size of a number than its type has"),
        (put("<h", 72, 7), "another size of a number than its type has"),
        (put("<h", 70, 1), "cannot be read as an image|no plain numbers|another size"),
        *[(put("<f", 108, offset), "begin inside the header") for offset in (0, 100, 351, -352, np.nan, np.inf, 352.5)],
        (put("<f", 108, 1e30), "the file is truncated"),
        (put("<i", 0, 347), "cannot be read as an image"),
        (put("<4s", 344, b"ni1\0"), "lie in a second file"),
        (put("<f", 112, 1e38), "NaN or infinity|too large"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_headers_of_nifti_that_lie(tmp_path: Path, name: str, change: Callable[[bytearray], None], problem: str) -> None:
    path = edit(write(tmp_path / name, name != "a.nii"), change)
    with pytest.raises(DataError, match=problem):
        read(path)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("intercept", [5.0, 0.0, np.nan])
@pytest.mark.parametrize("kind", ["i2", "u1", "f4"])
def test_a_slope_of_zero_means_no_scaling(tmp_path: Path, slope: float, intercept: float, kind: str) -> None:
    """As nifti1.h says and nibabel reads."""
    path = edit(write(tmp_path / "a.nii.gz", kind=kind), put("<2f", 112, slope, intercept))
    expected = np.asarray(nib.load(path).dataobj).T
    np.testing.assert_array_equal(expected, voxels().astype(kind))
    np.testing.assert_array_equal(read(path), expected)


def test_scaled_voxels(tmp_path: Path) -> None:
    path = edit(write(tmp_path / "a.nii.gz"), put("<2f", 112, 0.5, -3))
    np.testing.assert_allclose(read(path), voxels() * 0.5 - 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders_of_nifti(tmp_path: Path, order: str) -> None:
    image = nib.Nifti1Image(voxels().T.astype(f"{order}f4"), np.diag([1, 2, 3, 1]))
    header = image.header.as_byteswapped(order)
    nib.save(nib.Nifti1Image(image.dataobj, image.affine, header), tmp_path / "a.nii.gz")
    read_back = read_nifti_header(tmp_path / "a.nii.gz")
    assert (read_back.voxels.n_voxels, read_back.voxels.item_bytes) == (voxels().size, 4)
    np.testing.assert_array_equal(read(tmp_path / "a.nii.gz"), voxels())
    damaged = np.array(image.dataobj)
    damaged[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(damaged, image.affine, header), tmp_path / "b.nii.gz")
    with pytest.raises(DataError, match=r"holds NaN or infinity; .*found: 1 voxel;"):
        read(tmp_path / "b.nii.gz")


META = "ObjectType = Image\nNDims = 3\nDimSize = 14 12 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 14 12 5\nencoding: raw\nendian: little\n\n"


@pytest.mark.parametrize(
    ("ending", "old", "new", "problem"),
    [
        *[(".mha", "NDims = 3", f"NDims = {n}", "sizes that no image has") for n in (99, 100, 1000, 0, 2, 5)],
        *[(".mha", "NDims = 3", f"NDims = {n}", "needs whole numbers|sizes that no image has") for n in ("-1", "x", "", "1e3")],
        (".mha", "NDims = 3\n", "", "needs whole numbers as 'NDims'; .*found: nothing"),
        (".mha", "14 12 5", "14 12 -5", "sizes that no image has"),
        (".mha", "14 12 5", "14 12 50000", "the file is truncated"),
        (".mha", "14 12 5", "14 12 " + "9" * 30, "needs whole numbers"),
        (".mha", "14 12 5", "14 12", "sizes that no image has"),
        (".mha", "MET_SHORT", "MET_NONSENSE", "the type of the voxels is not known"),
        (".mha", "LOCAL\n", "/etc/passwd\n", "in another folder; .*found: /etc/passwd"),
        (".mha", "LOCAL\n", "../a.raw\n", "in another folder"),
        (".mha", "LOCAL\n", "missing.raw\n", "names is missing"),
        (".mha", "LOCAL\n", "LIST\n/etc/passwd\n", "in another folder"),
        (".mha", "ElementDataFile = LOCAL\n", "", "cannot be read as an image"),
        (".nrrd", "dimension: 3", "dimension: 4", "sizes that no image has"),
        (".nrrd", "dimension: 3", "dimension: 900", "sizes that no image has"),
        (".nrrd", "sizes: 14 12 5", "sizes: 14 12 0", "sizes that no image has"),
        (".nrrd", "sizes: 14 12 5", "sizes: 14000 12000 5000", "the file is truncated"),
        (".nrrd", "sizes: 14 12 5\n", "", "needs whole numbers as 'sizes'"),
        (".nrrd", "type: short", "type: block", "the type of the voxels is not known"),
        (".nrrd", "endian: little\n", "endian: little\ndata file: /etc/passwd\n", "in another folder"),
        (".nrrd", "endian: little\n", "endian: little\ndatafile: sub/a.raw\n", "in another folder"),
        (".nrrd", "encoding: raw", "encoding: gzip", "damaged|truncated"),
        (".nrrd", "NRRD0004", "NOTNRRD", "cannot be read as an image"),
    ],
)
def test_headers_of_text_that_lie(tmp_path: Path, ending: str, old: str, new: str, problem: str) -> None:
    text = META if ending == ".mha" else NRRD
    path = tmp_path / f"a{ending}"
    path.write_bytes(text.encode() + voxels().tobytes())
    np.testing.assert_array_equal(read(path), voxels())
    assert old in text
    path.write_bytes(text.replace(old, new).encode() + voxels().tobytes())
    with pytest.raises(DataError, match=problem):
        read(path)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_files_of_voxels_lie_beside_their_header_and_count(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a{ending}", compressed=False)
    (data,) = data_files(path)
    assert data.parent == tmp_path
    assert data != path
    np.testing.assert_array_equal(read(path), voxels())
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"the file is truncated; file: .*; found: \d+ bytes; allowed: 1680 bytes"):
        read_header(path)
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(DataError, match="names no regular file"):
        read(path)


def test_files_that_hold_their_voxels_name_no_other(tmp_path: Path) -> None:
    assert data_files(write(tmp_path / "a.mha")) == data_files(write(tmp_path / "a.nii.gz")) == ()
    (tmp_path / "b.mhd").write_text("no header")
    assert data_files(tmp_path / "b.mhd") == ()


def test_voxels_in_several_files(tmp_path: Path) -> None:
    for i, part in enumerate(voxels()):
        (tmp_path / f"s{i}.raw").write_bytes(part.tobytes())
    names = "\n".join(f"s{i}.raw" for i in range(5))
    for line in (f"LIST\n{names}\n", "s%d.raw 0 4 1\n"):
        (tmp_path / "a.mhd").write_text(META.replace("LOCAL\n", line))
        np.testing.assert_array_equal(read(tmp_path / "a.mhd"), voxels())
        assert len(data_files(tmp_path / "a.mhd")) == 5


@pytest.mark.parametrize("kind", ["deflate", "plain", "imagej"])
def test_pages_of_a_tiff_that_are_lost(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    options = {
        "deflate": {"compression": "zlib"},
        "plain": {"metadata": None},
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    }[kind]
    tifffile.imwrite(path, voxels().astype(np.uint16), photometric="minisblack", **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(path), voxels())
    whole = path.read_bytes()
    for share in (0.2, 0.4, 0.6, 0.8, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"truncated|cannot be read"):
            read(path)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a pointer of Git LFS; git lfs pull"),
        (b"\0" * 128 + b"DICM" + b"\0" * 100, "DICOM; convert the series"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "a PNG"),
        (b"PK\3\4" + b"\0" * 100, "a zip archive"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page or XML"),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_files_of_another_kind_are_named(tmp_path: Path, ending: str, head: bytes, kind: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(head)
    with pytest.raises(DataError, match=f"cannot be read as an image; file: .*; found: {kind}"):
        read(tmp_path / f"a{ending}")


def bombs(folder: Path) -> list[Path]:
    """Small files that announce thousands of millions of voxels."""
    nifti = edit(write(folder / "a.nii", False), put("<4h", 40, 3, 2000, 2000, 2000))
    packed = edit(write(folder / "b.nii.gz"), put("<4h", 40, 3, 2000, 2000, 2000))
    (folder / "c.nrrd").write_bytes(NRRD.replace("14 12 5", "2000 2000 2000").encode() + voxels().tobytes())
    (folder / "d.mha").write_bytes(META.replace("14 12 5", "2000 2000 2000").encode() + voxels().tobytes())
    return [nifti, packed, folder / "c.nrrd", folder / "d.mha"]


def test_small_files_that_announce_much_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    for path in bombs(tmp_path):
        with pytest.raises(DataError, match="the file is truncated"):
            read(path)
        with pytest.raises(DataError, match="the file is truncated"):
            read_grid(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "float.nii", "a.png", "a.tif", "a.npy"])
def test_an_image_that_does_not_fit_into_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".png"):
        Pillow.fromarray(voxels()[0].astype(np.uint8)).save(path)
    elif name.endswith(".tif"):
        tifffile.imwrite(path, voxels(), photometric="minisblack")
    elif name.endswith(".npy"):
        np.save(path, voxels())
    else:
        write(path, kind="f4" if name.startswith("float") else "i2")
    monkeypatch.setattr(stored_module, "_CHECKED_BYTES", 0)
    monkeypatch.setattr(stored_module, "free_ram_gb", lambda: 1e-7)
    with pytest.raises(ResourceError, match=r"not enough memory to read the image; file: .*; found: \d+ numbers, .*--workers 1"):
        read(path)
    monkeypatch.setattr(stored_module, "free_ram_gb", lambda: None)  # systems that do not tell
    assert read(path).size


def test_any_exception_of_a_library_is_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "a.npy", "a.nii.gz"):
        path = tmp_path / name
        path.write_bytes(b"x" * 400)
        for broken in (ZeroDivisionError("by zero"), KeyError("IHDR"), OverflowError("int too large")):
            monkeypatch.setattr("autoseg.io.images.format_of", lambda _, broken=broken: raising(broken))
            with pytest.raises(AutosegError, match=f"cannot be read as an image; file: .*{name}; found: "):
                read(path)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_not_utf_8_is_refused_before_a_library_meets_it(tmp_path: Path) -> None:
    """ITK ends the whole process over it."""
    name = os.fsdecode(b"x\xff\xfe.nii.gz")
    write(tmp_path / "a.nii.gz").rename(tmp_path / name)
    for reader in (read, read_header):
        with pytest.raises(DataError, match=r"the file's name is not UTF-8; file: .*fix: rename it"):
            reader(tmp_path / name)


def raising(error: Exception) -> object:
    class Format:
        has_geometry = True

        @staticmethod
        def read(path: Path, as_labels: bool) -> None:
            raise error

    return Format()
