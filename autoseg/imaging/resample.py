"""Resampling to another resolution over the same extent: one small matrix per axis, multiplied in float32.

Interpolation on a regular grid is separable, so a volume is resampled by three matrix products, which is what BLAS is
fast at. They are kept too small for BLAS's own threads, which stall for milliseconds a product on a busy machine; the
callers work on several cases or slabs at once anyway. Voxel edges, not centres, stay aligned (`Grid.with_shape`);
beyond the edge the outermost voxel continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import permutations
from math import prod
from typing import Any

import numpy as np

from autoseg.errors import UsageError
from autoseg.imaging.geometry import Triple

ANISOTROPY_THRESHOLD = 3  # nnU-Net (Isensee et al. 2021): a coarser axis than this is not interpolated across
_SPLINE_REACH = 13  # the cubic cardinal spline falls by 0.268 a voxel: 0.268^13 is below float32 precision
_BAND_ROWS = 8  # rows multiplied at once: products so small (below 2^18) that OpenBLAS keeps each on one thread
_SLAB_VOXELS = 1 << 20  # voxels per working array of `resample_argmax`: 4 MB, so that it stays in the cache
_TIE_BREAK = 1e-4  # weight of the nearest voxel that decides between equal labels; far above float32 rounding

Bands = tuple[tuple[slice, slice, np.ndarray], ...]


@lru_cache(maxsize=128)
def axis_matrix(n_in: int, n_out: int, order: int) -> np.ndarray:
    """Matrix (n_out, n_in), float32, that resamples one axis; read-only, each row sums to 1.

    Args:
        order: 0 nearest voxel, 1 linear, 3 interpolating cubic B-spline (Unser 1999), as scipy and scikit-image count.

    Raises:
        UsageError: another order, or a size below 1.
    """
    if order not in (0, 1, 3):
        raise UsageError("unknown interpolation order", found=order, allowed="0 (nearest), 1 (linear), 3 (cubic)")
    if n_in < 1 or n_out < 1:
        raise UsageError("an axis needs at least one voxel", found=f"{n_in} to {n_out}")
    rows = np.arange(n_out)
    matrix = np.zeros((n_out, n_in))
    if order == 0:
        matrix[rows, (2 * rows + 1) * n_in // (2 * n_out)] = 1  # whole numbers: a tie goes to the upper voxel, always
    else:
        centre = (rows + 0.5) * n_in / n_out - 0.5
        reach = 1 if order == 1 else _SPLINE_REACH
        taps = np.floor(centre)[:, None].astype(np.int64) + np.arange(1 - reach, reach + 1)
        distance = np.abs(centre[:, None] - taps)
        weights = np.maximum(1 - distance, 0) if order == 1 else _cardinal_spline(distance)
        np.add.at(matrix, (rows[:, None], taps.clip(0, n_in - 1)), weights)
        matrix /= matrix.sum(axis=1, keepdims=True)
    return _frozen(matrix)


def axis_orders(spacing: Sequence[float], target: Sequence[float], order: int) -> Triple:
    """Interpolation order along (z, y, x): `order`, but nearest along the one axis that is far coarser than the others.

    The axis is sought in `spacing` first, then in `target` (both mm); a maximum shared by two axes is none. Source:
    nnU-Net's separate treatment of anisotropic data.
    """
    for candidate in (spacing, target):
        coarsest = max(candidate)
        if coarsest > ANISOTROPY_THRESHOLD * min(candidate):
            axes = [a for a in range(3) if np.isclose(candidate[a], coarsest)]
            return tuple(0 if axes == [a] else order for a in range(3))  # type: ignore[return-value]
    return (order, order, order)


def resample_image(data: np.ndarray, shape: Triple, orders: Triple) -> np.ndarray:
    """Resample (C, Z, Y, X) intensities to (C, *shape) float32, each channel clipped to its own range.

    The clipping removes the overshoot of cubic splines at edges, as scikit-image's `resize` does.

    Args:
        orders: interpolation order along each axis, see `axis_matrix`.
    """
    source: Triple = data.shape[1:]
    bands = tuple(_bands(n, m, o) for n, m, o in zip(source, shape, orders))
    result = np.empty((len(data), *shape), dtype=np.float32)
    for channel, out in zip(data, result):
        np.clip(_apply(channel.astype(np.float32, copy=False), shape, bands), channel.min(), channel.max(), out=out)
    return result


def resample_labels(indices: np.ndarray, shape: Triple, orders: Triple) -> np.ndarray:
    """Resample (Z, Y, X) class indices to `shape`, of the same type and without new values.

    With linear interpolation each label's mask is resampled on its own and the largest share of a voxel wins; among
    equal shares the label of the nearest voxel. Only the surroundings of a label are computed.

    Args:
        orders: 0 or 1 along each axis.

    Raises:
        UsageError: cubic interpolation, which overshoots and has no meaning for labels.
    """
    if not set(orders) <= {0, 1}:
        raise UsageError("labels cannot be resampled with this order", found=orders, allowed="0 (nearest), 1 (linear)")
    source: Triple = indices.shape
    if tuple(shape) == source:
        return indices.copy()
    if not any(orders):
        return _take_nearest(indices, shape)
    return _largest_shares(indices, [_label_matrix(n, m, o) for n, m, o in zip(source, shape, orders)])


def labels_through_grid(indices: np.ndarray, shape: Triple) -> np.ndarray:
    """Draw (Z, Y, X) class indices on another grid over the same extent and bring them back: what that grid can hold at best.

    Drawn as label maps are prepared, brought back as predictions are: linear interpolation of each label's mask, both
    times the largest share wins.
    """
    return resample_labels(resample_labels(indices, shape, (1, 1, 1)), indices.shape, (1, 1, 1))


def _largest_shares(indices: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Resample the mask of each label by a matrix per axis; the largest share of a voxel wins."""
    import scipy.ndimage  # 0.2 s to import, and most datasets keep their grid

    shape: Triple = tuple(len(matrix) for matrix in matrices)  # type: ignore[assignment]
    best = np.zeros(shape, dtype=np.float32)
    winner = np.zeros(shape, dtype=indices.dtype)
    everywhere = tuple(slice(0, n) for n in indices.shape)  # for background, which find_objects leaves out
    for label, box in enumerate([everywhere, *scipy.ndimage.find_objects(indices)]):
        if box is None:
            continue
        parts = [m[:, s] for m, s in zip(matrices, box)]
        reach = tuple(_span(p.any(axis=1)) for p in parts)
        if any(r.start == r.stop for r in reach):
            continue  # thinner than the new voxels are apart
        bands = tuple(_cut(p[r]) for p, r in zip(parts, reach))
        extent: Triple = tuple(r.stop - r.start for r in reach)
        share = _apply((indices[box] == label).astype(np.float32), extent, bands)
        _keep_larger(best[reach], winner[reach], share, label)
    return winner


def resample_argmax(logits: np.ndarray, shape: Triple, *, threads: int = 1) -> np.ndarray:
    """Resample (K, z, y, x) logits to `shape` and take the index of the largest class at each voxel.

    uint8, or uint16 from 255 classes on. Linear. Works through slabs of the result class by class, so
    that no class is ever held at full size. Among equal classes the lowest index wins, as with `argmax`.
    """
    source: Triple = logits.shape[1:]
    dtype = np.uint8 if len(logits) < 255 else np.uint16  # 255 and 65535 mean "ignore", see LabelSet.index_dtype
    result = np.zeros(shape, dtype=dtype)
    along_z = axis_matrix(source[0], shape[0], 1)
    bands_y, bands_x = _bands(source[1], shape[1], 1), _bands(source[2], shape[2], 1)
    depth = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))

    def fill(first: int) -> None:
        rows = slice(first, min(first + depth, shape[0]))
        needed = _span(along_z[rows].any(axis=0))
        slab: Triple = (rows.stop - rows.start, *shape[1:])
        bands = (() if source[0] == shape[0] else _cut(along_z[rows, needed]), bands_y, bands_x)
        best = np.full(slab, -np.inf, dtype=np.float32)
        for k, plane in enumerate(logits[:, needed]):
            _keep_larger(best, result[rows], _apply(plane.astype(np.float32), slab, bands), k)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, shape[0], depth)))
    return result


def _cardinal_spline(distance: np.ndarray) -> np.ndarray:
    """Interpolating cubic spline of a unit impulse: the B-spline convolved with its inverse filter √3·z^|k|."""
    pole = np.sqrt(3) - 2
    total = np.zeros_like(distance)
    for k in range(-_SPLINE_REACH - 2, _SPLINE_REACH + 3):
        t = np.abs(distance - k)
        inner = 2 / 3 - t**2 + t**3 / 2
        outer = np.maximum(2 - t, 0) ** 3 / 6
        total += np.sqrt(3) * pole ** abs(k) * np.where(t < 1, inner, outer)
    return total


def _frozen(matrix: np.ndarray) -> np.ndarray:
    result = matrix.astype(np.float32)
    result.setflags(write=False)
    return result


def _span(used: Any) -> slice:
    """Slice from the first to the last true entry; empty where there is none."""
    indices = np.flatnonzero(used)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)


@lru_cache(maxsize=128)
def _bands(n_in: int, n_out: int, order: int) -> Bands:
    """Cut `axis_matrix` into (rows, columns, part) without its zero corners; empty where nothing changes."""
    if n_in == n_out:
        return ()
    return _cut(axis_matrix(n_in, n_out, order))


def _cut(matrix: np.ndarray) -> Bands:
    bands = []
    for first in range(0, len(matrix), _BAND_ROWS):
        rows = slice(first, min(first + _BAND_ROWS, len(matrix)))
        columns = _span(matrix[rows].any(axis=0))
        bands.append((rows, columns, np.ascontiguousarray(matrix[rows, columns])))
    return tuple(bands)


@lru_cache(maxsize=32)
def _label_matrix(n_in: int, n_out: int, order: int) -> np.ndarray:
    """Mix `axis_matrix` with a trace of nearest neighbour, which decides voxels that lie exactly between two labels."""
    return _frozen((1 - _TIE_BREAK) * axis_matrix(n_in, n_out, order) + _TIE_BREAK * axis_matrix(n_in, n_out, 0))


def _apply(volume: np.ndarray, shape: Triple, bands: tuple[Bands, ...]) -> np.ndarray:
    """Resample (Z, Y, X) float32 along the axes with bands, in the order that needs the fewest multiplications."""
    changing = [a for a in range(3) if bands[a]]
    for axis in min(permutations(changing), key=lambda order: _cost(volume.shape, shape, bands, order)):
        volume = _along(volume, axis, shape[axis], bands[axis])
    return volume


def _cost(source: Sequence[int], shape: Triple, bands: tuple[Bands, ...], order: Sequence[int]) -> int:
    size, total = list(source), 0
    for axis in order:
        lines = prod(size) // size[axis]
        total += lines * sum(part.size for _, _, part in bands[axis])
        size[axis] = shape[axis]
    return total


def _along(volume: np.ndarray, axis: int, size: int, bands: Bands) -> np.ndarray:
    shape = list(volume.shape)
    shape[axis] = size
    result = np.empty(shape, dtype=np.float32)
    if axis == 0:  # one product for each y; otherwise one for each z
        volume, out = volume.swapaxes(0, 1), result.swapaxes(0, 1)
    else:
        out = result
    for rows, columns, part in bands:
        if axis == 2:
            np.matmul(volume[:, :, columns], part.T, out=out[:, :, rows])
        else:
            np.matmul(part, volume[:, columns], out=out[:, rows])
    return result


def _take_nearest(indices: np.ndarray, shape: Triple) -> np.ndarray:
    for axis, (n_in, n_out) in enumerate(zip(indices.shape, shape)):
        indices = indices.take(axis_matrix(n_in, n_out, 0).argmax(axis=1), axis=axis)
    return indices


def _keep_larger(best: np.ndarray, winner: np.ndarray, value: np.ndarray, index: int) -> None:
    """Do one step of a running argmax, in place; indices must come in ascending order.

    Arithmetic, unlike a masked assignment, runs at memory speed.
    """
    larger = value > best
    np.maximum(best, value, out=best)
    np.maximum(winner, larger * winner.dtype.type(index), out=winner)
