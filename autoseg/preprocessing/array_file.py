"""Arrays of the store on disk: packed for reading in parts, and read without trusting the file.

A prepared case may come from anybody. `.b2nd` files are Blosc2 arrays, `.npy` files plain
lists of numbers; a file of either kind that holds anything but numbers is refused before a library
acts on it.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.errors import DataError
from autoseg.imaging.geometry import Box, Triple
from autoseg.system.files import write_array

if TYPE_CHECKING:
    import blosc2

_BLOCK_DEPTH, _BLOCK_AREA = 8, 48 * 48  # voxels decompressed together: thin, so that single slices stay cheap too
_BLOCKS_PER_CHUNK = 4  # along each axis: a chunk of about 32×192×192 is one write


def packed_content(array: np.ndarray) -> bytes:
    """Compress an array into the content of a .b2nd file.

    Blosc2 could write the file itself, but would hold Python's lock meanwhile.

    Args:
        array: (..., Z, Y, X).
    """
    import blosc2  # 0.25 s to import, and reading a stored key does not need it

    lead, blocks = (1,) * (array.ndim - 3), _blocks(array.shape[-3:])
    chunks = tuple(min(n, _BLOCKS_PER_CHUNK * b) for n, b in zip(array.shape[-3:], blocks))
    # Zstandard 1 with byte shuffle: 0.70 of raw float16 noise in 1.0 ms a small case, where LZ4 does not compress at all
    settings = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.SHUFFLE], nthreads=1)
    packed = blosc2.asarray(np.ascontiguousarray(array), chunks=lead + chunks, blocks=lead + blocks, cparams=settings)
    return bytes(packed.to_cframe())


def npy_content(array: np.ndarray) -> bytes:
    """Content of a .npy file with a plain array."""
    buffer = io.BytesIO()
    write_array(buffer, array)
    return buffer.getvalue()


def read_box(path: Path, box: Box, shape: Triple, lead: tuple[int, ...]) -> np.ndarray:
    """Read the box of a stored array, with zeros where it reaches outside.

    Args:
        shape: (Z, Y, X) of the stored array, in voxels.
        lead: sizes of the axes before these: `(n_channels,)` or `()`.

    Raises:
        DataError: the file is damaged, or no plain array of this shape.
    """
    with read_errors(path):
        stored = _open_plain(path, (*lead, *shape))
        return _boxed(stored, box, shape, lead)


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn the errors that libraries raise over a damaged file into a `DataError`.

    Running out of memory passes through.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, SyntaxError) as error:
        if any(words in str(error) for words in ("allocate memory", "out of memory")):
            raise
        raise unreadable_file(path, f"{type(error).__name__}: {error}") from error


def unreadable_file(path: Path, found: str, allowed: str = "what autoseg preprocess has written") -> DataError:
    """Error for a file that the store has not written, with the way to write it again."""
    fix = f"delete the folder {path.parent}, then autoseg preprocess"
    return DataError("the prepared case cannot be read", file=path, found=found, allowed=allowed, fix=fix)


def _blocks(shape: tuple[int, ...]) -> Triple:
    """Block edges that divide the shape with little waste; wider where there are few slices."""
    depth = min(shape[0], _BLOCK_DEPTH)
    edge = round(math.sqrt(_BLOCK_AREA * _BLOCK_DEPTH / depth))
    ideal = (depth, edge, edge)
    return tuple(math.ceil(n / math.ceil(n / i)) for n, i in zip(shape, ideal))  # type: ignore[return-value]


def _open_plain(path: Path, shape: tuple[int, ...]) -> blosc2.NDArray:
    """Open a stored array of numbers for reading by one thread, since the callers are threads already.

    A file may come from anybody. `blosc2.open` makes whatever its meta layers ask for: other files,
    addresses, and expressions whose source it runs (up to 4.14.0, even if told to read only). The
    function that it calls first, and that is called here, makes none of that.

    Raises:
        DataError: anything but a plain array of this shape.
    """
    import blosc2

    stored = blosc2.blosc2_ext.open(str(path), "r", 0, dparams=blosc2.DParams(nthreads=1))
    chunks = getattr(stored, "schunk", stored)
    layers = [*chunks.meta.keys(), *(["further metadata"] if len(chunks.vlmeta) else [])]
    if type(stored) is not blosc2.NDArray or layers != ["b2nd"]:
        raise unreadable_file(path, f"a file with {', '.join(layers) or 'bytes'}")
    if stored.dtype.kind not in "uif" or stored.dtype.itemsize != chunks.typesize or stored.shape != shape:
        raise unreadable_file(path, f"{stored.dtype} of {chunks.typesize} bytes, shape {stored.shape}", f"numbers, shape {shape}")
    return stored


def _boxed(stored: blosc2.NDArray, box: Box, shape: Triple, lead: tuple[int, ...]) -> np.ndarray:
    """Part of an open array inside a box, zeros outside."""
    start = tuple(min(max(a, 0), n) for a, n in zip(box.start, shape))
    stop = tuple(min(max(b, a), n) for a, b, n in zip(start, box.stop, shape))
    size = tuple(b - a for a, b in zip(start, stop))
    if 0 in size:
        return np.zeros((*lead, *box.shape), dtype=stored.dtype)
    # the function that indexing ends in; indexing itself takes two thirds as long again as decompressing a small box
    part = stored.get_slice_numpy(np.empty((*lead, *size), dtype=stored.dtype), ((0,) * len(lead) + start, lead + stop))
    if size == box.shape:
        return part
    result = np.zeros((*lead, *box.shape), dtype=stored.dtype)
    inside = tuple(slice(a - c, b - c) for a, b, c in zip(start, stop, box.start))
    result[..., inside[0], inside[1], inside[2]] = part
    return result
