"""Grids, boxes and the transforms between array index and world. Pure numpy.

Array axes are (z, y, x); world points are (x, y, z) in LPS millimetres, as DICOM, ITK and 3D Slicer
have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoseg.errors import GeometryError

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A half-open box of array indices, `start` <= index < `stop`, both (z, y, x)."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        return tuple(b - a for a, b in zip(self.start, self.stop))  # type: ignore[return-value]

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop))  # type: ignore[return-value]

    @staticmethod
    def around(mask: np.ndarray) -> Box | None:
        """Tight box around the true voxels of a (Z, Y, X) mask; None where it has none."""
        spans = []
        for axis in range(3):
            line = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            if line.size == 0:
                return None
            spans.append((int(line[0]), int(line[-1]) + 1))
        return Box(tuple(s for s, _ in spans), tuple(e for _, e in spans))  # type: ignore[arg-type]

    def grown(self, margin: int, shape: Sequence[int]) -> Box:
        """The box with `margin` voxels more on every side, as far as an array of this shape reaches."""
        start = tuple(max(0, a - margin) for a in self.start)
        return Box(start, tuple(min(n, b + margin) for n, b in zip(shape, self.stop)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class AxisMap:
    """A permutation of the array axes followed by flips: result axis `i` is source axis `order[i]`,
    flipped if `flip[i]`.
    """

    order: Triple
    flip: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Reorder the last three axes of `array`; a view, no copy."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + a for a in self.order))
        z, y, x = (slice(None, None, -1 if f else 1) for f in self.flip)
        return moved[..., z, y, x]

    @property
    def inverse(self) -> AxisMap:
        order = tuple(self.order.index(a) for a in range(3))
        return AxisMap(order, tuple(self.flip[a] for a in order))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxel centres.

    Args:
        shape: voxels along (z, y, x).
        affine: 4×4, takes (z, y, x, 1) index to (x, y, z, 1) world in LPS mm.

    Raises:
        GeometryError: empty shape, or an affine that is not finite or not invertible.
    """

    shape: Triple
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError("a grid needs three axes of at least one voxel", found=self.shape)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError("the affine of a grid must be 4×4 and finite", found=affine.tolist())
        if min(self.spacing) <= 0 or self.voxel_volume < 1e-6 * np.prod(self.spacing):
            raise GeometryError(
                "the voxel axes of a grid must be independent and longer than zero",
                found=f"spacing {self.spacing}",
                fix="correct spacing and direction in the file's header",
            )

    @staticmethod
    def from_spacing(shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float] = (0, 0, 0)) -> Grid:
        """Make a canonical grid: axes along world z, y, x. `spacing` is (z, y, x) mm, `origin` the
        world (x, y, z) of voxel 0.
        """
        affine = np.eye(4)
        affine[:3, :3] = np.diag(spacing)[::-1]
        affine[:3, 3] = origin
        return Grid(tuple(shape), affine)  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along (z, y, x), mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Size of the grid from voxel edge to voxel edge along (z, y, x), mm."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing))  # type: ignore[return-value]

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def index_to_world(self, index: np.ndarray) -> np.ndarray:
        """Convert (N, 3) indices (z, y, x), fractions allowed, to (N, 3) world points (x, y, z) mm."""
        return np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """Convert (N, 3) world points (x, y, z) mm to (N, 3) fractional indices (z, y, x)."""
        return np.linalg.solve(self.affine[:3, :3], (np.asarray(points, dtype=np.float64) - self.affine[:3, 3]).T).T

    def crop(self, box: Box) -> Grid:
        """Grid of `array[box.slices]`; a box that reaches outside pads."""
        affine = self.affine.copy()
        affine[:3, 3] = self.index_to_world(np.array([box.start]))[0]
        return Grid(box.shape, affine)

    def with_shape(self, shape: Sequence[int]) -> Grid:
        """Grid of another resolution over the same extent: voxel edges, not centres, stay aligned."""
        factor = np.array(self.shape, dtype=np.float64) / np.array(shape, dtype=np.float64)
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * factor
        affine[:3, 3] = self.index_to_world((factor - 1)[None] / 2)[0]
        return Grid(tuple(shape), affine)  # type: ignore[arg-type]

    def canonical_axes(self) -> AxisMap:
        """Flips and swaps that bring the axes closest to world (z, y, x), each pointing up (S, P,
        L).
        """
        cosines = self.affine[:3, :3] / np.array(self.spacing)
        order: list[int] = []
        for row in (2, 1, 0):  # world z first: array axis 0
            free = [a for a in range(3) if a not in order]
            order.append(max(free, key=lambda a: abs(cosines[row, a])))
        flip = tuple(bool(cosines[row, a] < 0) for row, a in zip((2, 1, 0), order))
        return AxisMap(tuple(order), flip)  # type: ignore[arg-type]

    def reoriented(self, axes: AxisMap) -> Grid:
        """Grid of `axes.apply(array)`."""
        shape = tuple(self.shape[a] for a in axes.order)
        sign = np.array([-1.0 if f else 1.0 for f in axes.flip])
        first = np.zeros(3)
        for i, a in enumerate(axes.order):
            first[a] = shape[i] - 1 if axes.flip[i] else 0
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, list(axes.order)] * sign
        affine[:3, 3] = self.index_to_world(first[None])[0]
        return Grid(shape, affine)  # type: ignore[arg-type]

    def corner_distance(self, other: Grid) -> float:
        """Largest distance (mm) between the same corner voxel of two grids of equal shape."""
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(self.shape) - 1)
        gap = self.index_to_world(corners) - other.index_to_world(corners)
        return float(np.linalg.norm(gap, axis=1).max())


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> Triple:
    """Shape (voxels along z, y, x) after resampling from `spacing` to `target` (mm), at least one
    an axis.
    """
    return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, target))  # type: ignore[return-value]


def coarser_spacing(spacing: Sequence[float], factor: float) -> tuple[float, ...]:
    """Spacing (mm) of a grid whose finest axes are coarser by a factor; axes that are coarser than that stay as they are."""
    finest = factor * min(spacing)
    return tuple(max(s, finest) for s in spacing)
