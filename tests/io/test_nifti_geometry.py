"""Where the voxels of NIfTI lie: nibabel is the oracle, and what a header says twice and differently is said."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import geometry_remarks, read_grid, read_image, read_label_map, write_label_map

SHAPE = (4, 5, 6)  # x, y, z


def rigid(seed: int, sizes: tuple[float, float, float] = (0.5, 0.7, 3.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * sizes
    affine[:3, 3] = (10, -20, 30)
    return affine


def save(
    path: Path,
    *,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    codes: tuple[int, int] = (0, 0),
    pixdim: tuple[float, float, float] | None = None,
    units: str = "mm",
) -> Path:
    """A volume whose header says what it is told, whether it fits together or not; `codes` are those of sform and qform."""
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), None)
    header = image.header
    if qform is not None:
        header.set_qform(qform, codes[1])
    if sform is not None:
        header.set_sform(sform, codes[0])
    header["sform_code"], header["qform_code"] = codes
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header.set_xyzt_units(units)
    nib.save(image, path)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with open(path, "r+b") as handle:  # nibabel corrects what it writes
        handle.write(header.binaryblock)
    return path


def lps(path: Path) -> np.ndarray:
    """From (z, y, x) to LPS, as nibabel reads the file."""
    return np.diag([-1.0, -1, 1, 1]) @ nib.load(path).affine @ np.eye(4)[[2, 1, 0, 3]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (2, 3), (4, 1)])
def test_the_transform_is_that_of_nibabel(tmp_path: Path, seed: int, codes: tuple[int, int]) -> None:
    path = save(tmp_path / "a.nii", sform=rigid(seed), qform=rigid(seed + 10), codes=codes)
    np.testing.assert_allclose(read_grid(path).affine, lps(path), atol=1e-4)
    assert read_image([path], ["x"]).grid == read_grid(path)
    assert geometry_remarks(path) == ()


@pytest.mark.parametrize(
    ("pixdim", "is_said"), [((0.5, 0.7, 3.0), False), ((0.50004, 0.7, 3.0), False), ((1, 1, 1), True), ((3, 0.7, 0.5), True)]
)
def test_an_sform_counts_more_than_voxel_sizes(tmp_path: Path, pixdim: tuple[float, float, float], is_said: bool) -> None:
    path = save(tmp_path / "a.nii", sform=rigid(1), codes=(1, 0), pixdim=pixdim)
    np.testing.assert_allclose(read_grid(path).spacing, (3.0, 0.7, 0.5), rtol=1e-3)
    assert geometry_remarks(path) == (("voxel sizes (pixdim) and sform differ: the sform counts",) if is_said else ())


def test_an_sform_that_swaps_axes_counts(tmp_path: Path) -> None:
    """A header of a thick third axis whose sform gives the thickness to the first."""
    sform = np.diag([3.0, 1, 1, 1])
    path = save(tmp_path / "a.nii", sform=sform, qform=np.diag([1.0, 1, 3, 1]), codes=(1, 1), pixdim=(1, 1, 3))
    assert read_grid(path).spacing == pytest.approx((1, 1, 3))  # z, y, x
    assert len(geometry_remarks(path)) == 1


def test_rounding_of_sizes_is_that_of_pixdim(tmp_path: Path) -> None:
    affine = rigid(3, (0.15, 0.15, 0.15))
    affine[:3, :3] = np.round(affine[:3, :3], 5)
    path = save(tmp_path / "a.nii", sform=affine, codes=(1, 0), pixdim=(0.15, 0.15, 0.15))
    np.testing.assert_allclose(read_grid(path).spacing, np.float32(0.15), rtol=1e-12)


@pytest.mark.parametrize("shear", [0.003, 0.02, 0.08])
def test_axes_that_are_not_quite_at_right_angles_are_read_with_a_remark(tmp_path: Path, shear: float) -> None:
    affine = rigid(5) @ np.array([[1, shear, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii.gz".replace(".gz", ""), sform=affine, codes=(1, 0), pixdim=(0.5, 0.7, 3.0))
    grid = read_grid(path)
    directions = grid.affine[:3, :3] / np.array(grid.spacing)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert np.abs(grid.affine - lps(path)).max() < 3 * shear
    assert geometry_remarks(path)[-1] == "the axes are not at right angles: the nearest ones that are count"
    labels = LabelSet(("a",), (1,))
    data = np.zeros(grid.shape, dtype=np.uint8)
    data[1, 2, 3] = 1
    write_label_map(tmp_path / "b.nii.gz", LabelMap(data, grid, labels), like=path)
    np.testing.assert_allclose(lps(tmp_path / "b.nii.gz"), lps(path), atol=1e-6)  # as the image says it, shear included
    assert read_label_map(tmp_path / "b.nii.gz", labels).grid == grid
    write_label_map(tmp_path / "c.nrrd", LabelMap(data, grid, labels), like=path)
    assert read_grid(tmp_path / "c.nrrd").corner_distance(grid) < 1e-3


def test_axes_far_from_right_angles_are_refused_with_a_way_out(tmp_path: Path) -> None:
    affine = rigid(5) @ np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", sform=affine, codes=(1, 0))
    with pytest.raises(GeometryError, match=r"far from right angles; file: .*a\.nii; found: \d+\.\d degrees off; .*Resample"):
        read_grid(path)


def test_an_sform_that_is_no_transform_is_passed_over(tmp_path: Path) -> None:
    for broken in (np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1])):
        broken[3] = (0, 0, 0, 1)
        path = save(tmp_path / "a.nii", sform=broken, qform=rigid(2), codes=(1, 1), pixdim=(0.5, 0.7, 3.0))
        nib_q = np.diag([-1.0, -1, 1, 1]) @ nib.load(path).header.get_qform() @ np.eye(4)[[2, 1, 0, 3]]
        np.testing.assert_allclose(read_grid(path).affine, nib_q, atol=1e-4)
        assert geometry_remarks(path) == ("the sform is no transform: the qform or the voxel sizes count",)


@pytest.mark.parametrize("pixdim", [(0, 0, 0), (np.nan, 1, 1), (np.inf, 2, 2)])
def test_a_header_without_voxel_sizes_is_said(tmp_path: Path, pixdim: tuple[float, float, float]) -> None:
    path = save(tmp_path / "a.nii", pixdim=pixdim)
    assert geometry_remarks(path) == ("the header holds no voxel size: 1 mm is assumed",)
    path = save(tmp_path / "b.nii", sform=rigid(1), codes=(1, 0), pixdim=pixdim)
    np.testing.assert_allclose(read_grid(path).spacing, (3.0, 0.7, 0.5), rtol=1e-6)


@pytest.mark.parametrize(("units", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units(tmp_path: Path, units: str, factor: float) -> None:
    path = save(tmp_path / "a.nii", sform=rigid(1), codes=(1, 0), pixdim=(0.5, 0.7, 3.0), units=units)
    np.testing.assert_allclose(read_grid(path).affine[:3], lps(path)[:3] * factor, rtol=1e-5, atol=1e-5 * factor)


def test_grids_of_images_and_labels_are_equal_however_they_are_stored(tmp_path: Path) -> None:
    a = save(tmp_path / "a.nii", sform=rigid(7), codes=(1, 0), pixdim=(0.5, 0.7, 3.0))
    b = save(tmp_path / "b.nii", qform=rigid(7), codes=(0, 1))
    first, second = read_grid(a), read_grid(b)
    assert isinstance(first, Grid)
    assert first.corner_distance(second) < 1e-4
