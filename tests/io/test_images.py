"""Image files against SimpleITK (LPS, x fastest) and nibabel (RAS, its own affine)."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.errors import DataError, GeometryError, LabelError, ResourceError, UsageError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import image_ending, read_grid, read_image, read_label_map, write_image, write_label_map, write_probabilities

VOLUMES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
SINGLE_FILES = (".nii.gz", ".nii", ".nrrd", ".mha")
LABELS = LabelSet(("a", "b"), (3, 300))
# NIfTI holds its geometry in 32 bit: seven digits, of origins of up to 200 mm and of directions
NIFTI_MM = 1e-4


def oblique(shape: tuple[int, int, int] = (3, 4, 5), seed: int = 0) -> Grid:
    """An anisotropic grid, rotated about all axes, far from the origin."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    rotation = Rotation.random(random_state=seed).as_matrix()
    affine[:3, :3] = rotation[:, ::-1] * np.array([4.0, 0.7, 0.3])
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return Grid(shape, affine)


def itk_of(array: np.ndarray, grid: Grid, vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    spacing = np.array(grid.spacing)
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    image.SetDirection((grid.affine[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    return image


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 100, shape).astype(np.float32)


def lps_affine(path: Path) -> np.ndarray:
    """nibabel's affine, (i, j, k) to RAS, as one of (z, y, x) to LPS."""
    return np.diag([-1.0, -1, 1, 1]) @ nib.load(path).affine @ np.eye(4)[[2, 1, 0, 3]]


def geometry(path: Path) -> tuple:
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("A.NII", ".nii"),
        ("a.b.nrrd", ".nrrd"),
        ("a.mha", ".mha"),
        ("a.PNG", ".png"),
        ("a.jpeg", ".jpeg"),
        ("a.gif", None),
        ("a.gz", None),
        ("._a.nii.gz", None),
        (".nii", None),
    ],
)
def test_image_ending(name: str, ending: str | None) -> None:
    assert image_ending(Path("folder") / name) == ending


@pytest.mark.parametrize("ending", VOLUMES)
def test_an_oblique_volume_is_read_as_itk_places_it(tmp_path: Path, ending: str) -> None:
    grid, data = oblique(), noise((3, 4, 5))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(itk_of(data, grid), str(path))
    image = read_image([path], ["MR"])
    np.testing.assert_array_equal(image.data, data[None])
    assert image.data.dtype == np.float32
    assert image.data.flags.c_contiguous
    assert image.grid == read_grid(path)
    stored = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        world = stored.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(image.grid.index_to_world(np.array([index]))[0], world, atol=1e-9)


@pytest.mark.parametrize("ending", SINGLE_FILES)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_write_and_read_back(tmp_path: Path, ending: str, n_channels: int) -> None:
    grid = oblique(seed=1)
    image = Image(noise((n_channels, 3, 4, 5)), grid, tuple(f"c{i}" for i in range(n_channels)))
    path = tmp_path / "new" / f"a{ending}"
    write_image(path, image)
    again = read_image([path], image.channels)
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_allclose(again.grid.affine, grid.affine, atol=NIFTI_MM if "nii" in ending else 1e-9)
    assert [p.name for p in path.parent.iterdir()] == [f"a{ending}"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 5)] * 3))
def test_written_nifti_as_nibabel_reads_it(tmp_path: Path, seed: int, shape: tuple[int, int, int]) -> None:
    grid = oblique(shape, seed)
    path = tmp_path / "a.nii.gz"
    write_image(path, Image(noise((1, *shape), seed), grid, ("MR",)))
    np.testing.assert_allclose(lps_affine(path), grid.affine, atol=NIFTI_MM)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj).T, noise(shape, seed))


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0)])
def test_nifti_of_nibabel_is_read_in_lps(tmp_path: Path, codes: tuple[int, int]) -> None:
    """Whether the file says where it lies by a quaternion, a matrix, or both."""
    grid = oblique((3, 4, 5), 3)
    ras = np.diag([-1.0, -1, 1, 1]) @ grid.affine @ np.eye(4)[[2, 1, 0, 3]]
    volume = nib.Nifti1Image(noise((3, 4, 5)).T, ras)
    volume.set_qform(ras, codes[0])
    volume.set_sform(ras, codes[1])
    path = tmp_path / "a.nii"
    nib.save(volume, path)
    image = read_image([path], ["MR"])
    np.testing.assert_allclose(image.grid.affine, grid.affine, atol=NIFTI_MM)
    np.testing.assert_array_equal(image.data[0], noise((3, 4, 5)))


def test_scaled_integers_are_unscaled(tmp_path: Path) -> None:
    volume = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    volume.header.set_slope_inter(2.0, -100.0)
    nib.save(volume, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").get_fdata()
    np.testing.assert_allclose(read_image([tmp_path / "a.nii"], ["CT"]).data[0], stored.T)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_every_pixel_type_becomes_float32(tmp_path: Path, dtype: type) -> None:
    data = (noise((2, 3, 4)) % 100).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(data), str(tmp_path / "a.nrrd"))
    image = read_image([tmp_path / "a.nrrd"], ["x"])
    assert image.data.dtype == np.float32
    np.testing.assert_allclose(image.data[0], data, rtol=1e-6)


@pytest.mark.parametrize("ending", SINGLE_FILES)
def test_two_dimensions_are_one_slice(tmp_path: Path, ending: str) -> None:
    flat = sitk.GetImageFromArray(noise((4, 5)))
    flat.SetSpacing((0.5, 2.0))
    flat.SetOrigin((7.0, -3.0))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(flat, str(path))
    image = read_image([path], ["XR"])
    np.testing.assert_array_equal(image.data, noise((4, 5))[None, None])
    assert image.grid.shape == (1, 4, 5)
    assert image.grid.spacing == (1.0, 2.0, 0.5)
    np.testing.assert_allclose(image.grid.affine[:3, 3], (7, -3, 0))


@pytest.mark.parametrize("ending", SINGLE_FILES)
def test_a_fourth_axis_is_channels(tmp_path: Path, ending: str) -> None:
    data = noise((3, 2, 4, 5))
    image = sitk.JoinSeries([itk_of(d, Grid.from_spacing((2, 4, 5), (3, 2, 1), (5, 6, 7))) for d in data])
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    read = read_image([path], ["a", "b", "c"])
    np.testing.assert_array_equal(read.data, data)
    assert read.grid == Grid.from_spacing((2, 4, 5), (3, 2, 1), (5, 6, 7))


@pytest.mark.parametrize("ending", SINGLE_FILES)
@pytest.mark.parametrize("shape", [(2, 4, 5), (4, 5)])
def test_vector_pixels_are_channels(tmp_path: Path, ending: str, shape: tuple[int, ...]) -> None:
    data = noise((*shape, 3))
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=True), str(tmp_path / f"a{ending}"))
    read = read_image([tmp_path / f"a{ending}"], ["r", "g", "b"])
    np.testing.assert_array_equal(read.data, np.moveaxis(data, -1, 0).reshape(3, *(1,) * (3 - len(shape)), *shape))


def test_one_file_per_channel(tmp_path: Path) -> None:
    grid = oblique()
    paths = [tmp_path / f"a_000{i}.nrrd" for i in range(2)]
    for i, path in enumerate(paths):
        sitk.WriteImage(itk_of(noise((3, 4, 5), i), grid), str(path))
    image = read_image(paths, ["T1", "T2"])
    np.testing.assert_array_equal(image.data, np.stack([noise((3, 4, 5), i) for i in range(2)]))
    assert image.channels == ("T1", "T2")


def test_channels_on_different_grids(tmp_path: Path) -> None:
    first, moved, larger = (tmp_path / f"{n}.nrrd" for n in ("first", "moved", "larger"))
    sitk.WriteImage(itk_of(noise((3, 4, 5)), Grid.from_spacing((3, 4, 5), (3, 1, 1))), str(first))
    sitk.WriteImage(itk_of(noise((3, 4, 5)), Grid.from_spacing((3, 4, 5), (3, 1, 1), (0, 0, 1.01))), str(moved))
    sitk.WriteImage(itk_of(noise((3, 4, 6)), Grid.from_spacing((3, 4, 6), (3, 1, 1))), str(larger))
    message = (
        r"different grids; file: .*{}; found: shape {}.*; allowed: shape \(3, 4, 5\), spacing \(3, 1, 1\) mm as in first\.nrrd"
    )
    with pytest.raises(GeometryError, match=message.format("moved.nrrd", r"\(3, 4, 5\)")):
        read_image([first, moved], ["T1", "T2"])
    with pytest.raises(GeometryError, match=message.format("larger.nrrd", r"\(3, 4, 6\)")):
        read_image([first, larger], ["T1", "T2"])


def test_channels_that_differ_by_rounding_are_one_grid(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1e-4)):
        sitk.WriteImage(
            itk_of(noise((3, 4, 5)), Grid.from_spacing((3, 4, 5), (3, 1, 1), (0, 0, shift))), str(tmp_path / f"{name}.nrrd")
        )
    assert read_image([tmp_path / "a.nrrd", tmp_path / "b.nrrd"], ["T1", "T2"]).grid.affine[2, 3] == 0


def test_wrong_number_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(noise((2, 3, 4, 2)), isVector=True), str(path))
    with pytest.raises(DataError, match=r"number of channels differs from dataset\.json; file: .*found: 2; allowed: 1 \(CT\)"):
        read_image([path], ["CT"])
    with pytest.raises(DataError, match=r"found: 2; allowed: 3 \(a, b, c\)"):
        read_image([path], ["a", "b", "c"])


@pytest.mark.parametrize(("bad", "count", "words"), [(np.nan, 2, "2 voxels"), (np.inf, 2, "2 voxels"), (np.nan, 1, "1 voxel")])
def test_nan_and_infinity(tmp_path: Path, bad: float, count: int, words: str) -> None:
    data = noise((2, 3, 4))
    data[0, 1, :count] = bad
    sitk.WriteImage(sitk.GetImageFromArray(data), str(tmp_path / "a.nrrd"))
    with pytest.raises(
        DataError, match=rf"holds NaN or infinity; file: .*a\.nrrd; found: {words}; allowed: finite.*fix: replace"
    ):
        read_image([tmp_path / "a.nrrd"], ["MR"])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8"])
def test_nan_in_nifti_is_refused(tmp_path: Path, ending: str, kind: str) -> None:
    """The NIfTI library inside ITK turns it into 0 before ITK can see it."""
    data = noise((2, 3, 4)).astype(kind)
    path = tmp_path / f"a{ending}"
    header = nib.Nifti1Header(endianness=kind[0])
    header.set_data_dtype(kind)
    nib.save(nib.Nifti1Image(data.T, np.eye(4), header), path)
    np.testing.assert_allclose(read_image([path], ["MR"]).data[0], data, rtol=1e-6)
    data[0, 0, 0], data[1, 2, 3] = np.nan, np.inf
    nib.save(nib.Nifti1Image(data.T, np.eye(4), header), path)
    with pytest.raises(DataError, match=r"the file holds NaN or infinity; file: .*; found: 2 voxels; allowed: finite numbers"):
        read_image([path], ["MR"])


@pytest.mark.parametrize("read", [read_grid, lambda p: read_image([p], ["x"]), lambda p: read_label_map(p, LABELS)])
def test_missing_files(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match=r"no such file; file: .*a\.nii\.gz"):
        read(tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("ending", VOLUMES)
@pytest.mark.parametrize("content", [b"", b"this is a text, not an image\n" * 30])
def test_files_that_are_no_images(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    found = "content that is no (NIfTI|NRRD|MetaImage)" if content else "a file of no bytes"
    with pytest.raises(DataError, match=rf"cannot be read as an image; file: .*; found: {found}; fix: copy or export it again"):
        read_image([path], ["x"])


def test_a_file_of_another_kind_than_images(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"cannot be read as an image; .*found: content of no format .*; fix: give an image, such as"
    ):
        read_image([path], ["x"])


@pytest.mark.parametrize("ending", SINGLE_FILES)
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_truncated_files(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(noise((20, 30, 40))), str(path), useCompression=ending != ".nii")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"the file is truncated; file: .*; found: \d+ bytes"):
        read_image([path], ["x"])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_truncated_nifti_says_how_much_is_missing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    nib.save(nib.Nifti1Image(noise((20, 30, 40)).T, np.eye(4)), path)
    np.testing.assert_array_equal(read_image([path], ["x"]).data[0], noise((20, 30, 40)))
    n_bytes = path.stat().st_size - 1000
    path.write_bytes(path.read_bytes()[:n_bytes])
    found = (
        rf"{n_bytes} bytes{', which break off' if ending == '.nii.gz' else ''}.*; allowed: 96352 bytes of voxels by its header"
    )
    with pytest.raises(DataError, match=rf"the file is truncated; file: .*; found: {found}; fix: copy"):
        read_image([path], ["x"])


def test_nifti_in_several_gzip_streams_is_complete(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(noise((20, 30, 40)).T, np.eye(4)), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    np.testing.assert_array_equal(read_image([path], ["x"]).data[0], noise((20, 30, 40)))


def test_uncompressed_nifti_named_nii_gz(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(noise((3, 4, 5)).T, np.eye(4)), tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image([path], ["x"]).data[0], noise((3, 4, 5)))
    write_label_map(tmp_path / "b.nii.gz", some_labels(read_grid(path)), like=path)
    assert read_grid(tmp_path / "b.nii.gz") == read_grid(path)


def test_voxels_of_another_size_than_the_header_says(tmp_path: Path) -> None:
    (tmp_path / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_FLOAT\nElementDataFile = missing.raw\n"
    )
    with pytest.raises(DataError, match=r"the file of voxels that the header names is missing; .*found: no missing\.raw"):
        read_grid(tmp_path / "a.mhd")
    (tmp_path / "missing.raw").write_bytes(bytes(4 * 4 * 4 * 4 - 1))
    with pytest.raises(DataError, match=r"the file is truncated; .*found: 255 bytes; allowed: 256 bytes"):
        read_image([tmp_path / "a.mhd"], ["x"])
    (tmp_path / "missing.raw").write_bytes(bytes(4 * 4 * 4 * 4))
    assert read_image([tmp_path / "a.mhd"], ["x"]).grid.shape == (4, 4, 4)


def test_a_grid_that_makes_no_sense_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_text(
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
        "space directions: (1,0,0) (1,0,0) (0,0,1)\nencoding: raw\nendian: little\n\n" + "x" * 32
    )
    with pytest.raises(GeometryError, match=r"must be independent and longer than zero; file: .*a\.nrrd; found: spacing"):
        read_grid(path)


def test_a_fifth_axis(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_text(
        "ObjectType = Image\nNDims = 5\nDimSize = 2 2 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + "x" * 32
    )
    with pytest.raises(
        DataError, match=r"sizes that no image has; file: .*found: NDims 5, DimSize 2 2 2 2 2; allowed: two to four axes"
    ):
        read_grid(tmp_path / "a.mha")


def test_label_values_become_indices(tmp_path: Path) -> None:
    values = np.zeros((2, 3, 4), np.int16)
    values[0, 0], values[1, 2] = 3, 300
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.nii.gz"))
    label = read_label_map(tmp_path / "a.nii.gz", LABELS)
    assert label.data.dtype == np.uint8
    np.testing.assert_array_equal(label.data, np.searchsorted([0, 3, 300], values))
    sitk.WriteImage(sitk.GetImageFromArray(values.astype(np.float64)), str(tmp_path / "b.nii.gz"))
    np.testing.assert_array_equal(read_label_map(tmp_path / "b.nii.gz", LABELS).data, label.data)


def test_invalid_label_maps(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), 7, np.uint8)), str(path))
    with pytest.raises(LabelError, match=r"values that no structure has; file: .*a\.nrrd; found: 7"):
        read_label_map(path, LABELS)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 2), np.uint8), isVector=True), str(path))
    with pytest.raises(DataError, match=r"a label file must have one channel; file: .*found: 2 channels"):
        read_label_map(path, LABELS)


def some_labels(grid: Grid) -> LabelMap:
    return LabelMap(np.random.default_rng(0).integers(0, 3, grid.shape).astype(np.uint8), grid, LABELS)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ending", SINGLE_FILES)
def test_a_label_map_has_exactly_its_image_s_geometry(tmp_path: Path, ending: str, seed: int) -> None:
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    sitk.WriteImage(itk_of(noise((3, 4, 5)), oblique(seed=seed)), str(source))
    label = some_labels(read_grid(source))
    write_label_map(target, label, like=source)
    if ending == ".nrrd":  # it stores spacing times direction as text: taking them apart costs the last digit of sixteen
        np.testing.assert_allclose(read_grid(target).affine, read_grid(source).affine, rtol=1e-15, atol=1e-15)
    else:
        assert geometry(target) == geometry(source)
        assert read_grid(target) == read_grid(source)
    np.testing.assert_array_equal(read_label_map(target, LABELS).data, label.data)
    assert sitk.ReadImage(str(target)).GetPixelID() == sitk.sitkUInt16  # the smallest that holds 300
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, target.name]


@pytest.mark.parametrize("ending", SINGLE_FILES)
def test_a_label_map_like_a_flat_image_is_flat(tmp_path: Path, ending: str) -> None:
    flat = sitk.GetImageFromArray(noise((4, 5)))
    flat.SetSpacing((0.3, 0.7))
    flat.SetOrigin((1.25, -7.5))
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    sitk.WriteImage(flat, str(source))
    label = some_labels(read_grid(source))
    write_label_map(target, label, like=source)
    assert sitk.ReadImage(str(target)).GetDimension() == 2
    assert geometry(target) == geometry(source)
    np.testing.assert_array_equal(read_label_map(target, LABELS).data, label.data)


@pytest.mark.parametrize("ending", SINGLE_FILES)
def test_a_label_map_like_channels_has_one(tmp_path: Path, ending: str) -> None:
    grid = oblique(seed=2)
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    sitk.WriteImage(sitk.JoinSeries([itk_of(noise((3, 4, 5), i), grid) for i in range(2)]), str(source))
    label = some_labels(read_grid(source))
    write_label_map(target, label, like=source)
    assert sitk.ReadImage(str(target)).GetDimension() == 3
    assert read_grid(target) == read_grid(source)
    np.testing.assert_array_equal(read_label_map(target, LABELS).data, label.data)


@pytest.mark.parametrize("codes", [(1, 2), (0, 1), (1, 0)])
def test_a_nifti_label_map_has_the_stored_bytes_of_its_image(tmp_path: Path, codes: tuple[int, int]) -> None:
    grid = oblique(seed=4)
    ras = np.diag([-1.0, -1, 1, 1]) @ grid.affine @ np.eye(4)[[2, 1, 0, 3]]
    volume = nib.Nifti1Image(noise((3, 4, 5)).T, ras)
    volume.set_qform(ras, codes[0])
    volume.set_sform(ras, codes[1])
    source, target = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    nib.save(volume, source)
    write_label_map(target, some_labels(read_grid(source)), like=source)
    before, after = nib.load(source).header, nib.load(target).header
    for key in ("qform_code", "sform_code", "quatern_b", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(before[key], after[key])
    np.testing.assert_array_equal(before["pixdim"][:4], after["pixdim"][:4])
    assert before.get_xyzt_units() == after.get_xyzt_units()


def test_a_big_endian_header_is_followed_to_seven_digits(tmp_path: Path) -> None:
    grid = oblique(seed=5)
    ras = np.diag([-1.0, -1, 1, 1]) @ grid.affine @ np.eye(4)[[2, 1, 0, 3]]
    source, target = tmp_path / "a.nii", tmp_path / "b.nii"
    nib.save(nib.Nifti1Image(noise((3, 4, 5)).T, ras, nib.Nifti1Header(endianness=">")), source)
    write_label_map(target, some_labels(read_grid(source)), like=source)
    np.testing.assert_allclose(read_grid(target).affine, read_grid(source).affine, atol=1e-6)


def test_nifti_2_is_refused(tmp_path: Path) -> None:
    """ITK does not read it."""
    nib.save(nib.Nifti2Image(noise((3, 4, 5)).T, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"NIfTI-2 cannot be read; file: .*; fix: save it as NIfTI-1"):
        read_grid(tmp_path / "a.nii")


def test_a_label_map_may_change_format(tmp_path: Path) -> None:
    source, target = tmp_path / "a.nrrd", tmp_path / "b.nii.gz"
    sitk.WriteImage(itk_of(noise((3, 4, 5)), oblique()), str(source))
    write_label_map(target, some_labels(read_grid(source)), like=source)
    np.testing.assert_allclose(lps_affine(target), read_grid(source).affine, atol=NIFTI_MM)


@pytest.mark.parametrize("flat", [False, True])
def test_probabilities_are_components(tmp_path: Path, flat: bool) -> None:
    source, target = tmp_path / "a.nii.gz", tmp_path / "p.nii.gz"
    shape = (1, 4, 5) if flat else (3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(noise(shape[1:] if flat else shape)), str(source))
    probabilities = np.random.default_rng(0).random((3, *shape))
    write_probabilities(target, probabilities, like=source)
    read = read_image([target], ["background", "a", "b"])
    np.testing.assert_array_equal(read.data, probabilities.astype(np.float32))
    assert read.grid == read_grid(source)


def test_a_format_that_cannot_be_written(tmp_path: Path) -> None:
    image = Image(noise((1, 2, 3, 4)), Grid.from_spacing((2, 3, 4), (1, 1, 1)), ("x",))
    with pytest.raises(ResourceError, match=r"the image cannot be written; file: .*a\.xyz; found: \S"):
        write_image(tmp_path / "a.xyz", image)
    assert list(tmp_path.iterdir()) == []


ODD = [
    "odd_geometry/brain1.nrrd",
    "odd_geometry/breast1.nrrd",
    "odd_geometry/brain1_label.nrrd",
    "odd_geometry/spinal_cord_t2s/t2s.nii.gz",
    "odd_geometry/spinal_cord_t2s/t2s_uncropped.nii.gz",
    "odd_geometry/spinal_cord_t2s/MNI-Poly-AMU_level_crop.nii.gz",
    "ct/ct.nii.gz",
    "fiducials/colin27.nii.gz",
    "mouse_brain/imagesTr/tg4510_tp3_10_20130523_UT.nii.gz",
    "mouse_brain/imagesTr/tg4510_tp3_11_20130523_UT.nii.gz",
    "brats2013/imagesTr/brats2013_pat0001_0000.nii.gz",
]


def assert_as_others_see_it(path: Path) -> None:
    grid = read_grid(path)
    image = sitk.ReadImage(str(path))
    assert image.GetSize() == grid.shape[::-1]
    corner = tuple(n - 1 for n in grid.shape)
    for index in ((0, 0, 0), corner, (corner[0], 0, corner[2])):
        world = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(grid.index_to_world(np.array([index]))[0], world, atol=1e-6)
    if path.name.endswith(".nii.gz"):
        assert nib.load(path).shape == grid.shape[::-1]
        ends = np.array([(0, 0, 0, 1), (*corner, 1)]).T
        np.testing.assert_allclose(grid.affine @ ends, lps_affine(path) @ ends, atol=1e-3)  # 32 bit over half a metre


@pytest.mark.real
@pytest.mark.parametrize("name", ODD)
def test_real_geometry(real_data: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    path = real_data(name)
    assert_as_others_see_it(path)
    grid = read_grid(path)
    target = tmp_path / f"mask{image_ending(path)}"
    write_label_map(target, LabelMap(np.zeros(grid.shape, np.uint8), grid, LABELS), like=path)
    assert geometry(target) == geometry(path)


@pytest.mark.real
def test_real_hippocampi(real_data: Callable[[str], Path]) -> None:
    paths = sorted(real_data("Task04_Hippocampus/imagesTr").glob("*.nii.gz"))[:10]
    assert len(paths) == 10
    for path in paths:
        assert_as_others_see_it(path)
        np.testing.assert_allclose(read_image([path], ["MRI"]).data[0], nib.load(path).get_fdata().T, rtol=1e-6)


@pytest.mark.real
def test_real_slices(real_data: Callable[[str], Path]) -> None:
    path = sorted(real_data("brain_slices_2d/imagesTr").glob("*.nii.gz"))[0]
    image = read_image([path], ["MR"])
    assert image.grid.shape[0] == 1
    np.testing.assert_allclose(image.data.squeeze(), nib.load(path).get_fdata().squeeze().T, rtol=1e-6)


def test_channels_are_a_list_of_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"channels must be a list of names; found: 'MR'; allowed: such as \['MR'\]"):
        read_image(tmp_path / "a.nrrd", "MR")
