"""The text headers of MetaImage and NRRD, as far as they say where the voxels are and how they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autoseg.errors import DataError
from autoseg.io.stored_voxels import MOST_AXES, Packing, StoredVoxels, beside, check_axes, no_image

_LONGEST = 1 << 18  # bytes of a header; those of other programs hold a few thousand
_META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR", "MET_ASCII_CHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(
        ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), 8
    ),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"), 8),
}
_NRRD_PACKING: dict[str, Packing] = {"raw": "", "gzip": "gzip", "gz": "gzip"}
_FIX = "copy or export it again"


def read_metaimage_header(path: Path) -> StoredVoxels:
    """Read the header of an existing .mha or .mhd file (https://itk.org/Wiki/ITK/MetaIO/Documentation).

    Raises:
        DataError: no MetaImage, sizes or types that no image has, or voxels in another folder.
    """
    text, start = _header(path, lambda line: line.partition("=")[0].strip() == "ElementDataFile", "MetaImage")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text)}
    rank = _whole_numbers(fields, ("NDims",), path)
    sizes = _whole_numbers(fields, ("DimSize",), path)
    if len(rank) != 1 or not 1 <= rank[0] <= MOST_AXES or len(sizes) != rank[0]:
        raise DataError(
            "the header announces sizes that no image has",
            file=path,
            found=f"NDims {fields['NDims'][:40]}, DimSize {fields['DimSize'][:80]}",
            allowed="two to four axes, each with its size",
            fix=_FIX,
        )
    channels = _whole_numbers({"n": "1", **fields}, ("ElementNumberOfChannels", "n"), path)
    kind = fields.get("ElementType", "").removesuffix("_ARRAY")
    if kind not in _META_BYTES:
        raise DataError("the type of the voxels is not known", file=path, found=kind[:40] or "no ElementType", fix=_FIX)
    n_voxels = check_axes(path, sizes) * check_axes(path, channels)
    packed, name = _is_true(fields.get("CompressedData")), fields["ElementDataFile"]
    binary = _is_true(fields.get("BinaryData", "True"))
    packing: Packing = "zlib" if packed else "" if binary else "other"
    local = name.upper() == "LOCAL"
    files = (path,) if local else _named_files(path, name, text, start)
    skipped = fields.get("HeaderSize", "0")  # bytes of another header; -1 stands for whatever comes before the voxels
    start = start if local else int(skipped) if skipped.isdecimal() else 0
    return StoredVoxels(path, files, start, packing, n_voxels, _META_BYTES[kind])


def read_nrrd_header(path: Path) -> StoredVoxels:
    """Read the header of an existing .nrrd or .nhdr file (https://teem.sourceforge.net/nrrd/format.html).

    Raises:
        DataError: no NRRD, sizes or types that no image has, or voxels in another folder.
    """
    text, start = _header(path, lambda line: not line.strip(), "NRRD")
    if not text or not text[0].startswith("NRRD000"):
        raise no_image(path, "NRRD")
    pairs = [line.partition(": ") for line in text[1:] if not line.startswith("#") and ":=" not in line]
    fields = {key.strip().lower(): value.strip() for key, separator, value in pairs if separator}
    rank, sizes = _whole_numbers(fields, ("dimension",), path), _whole_numbers(fields, ("sizes",), path)
    if len(rank) != 1 or len(sizes) != rank[0]:
        raise DataError(
            "the header announces sizes that no image has",
            file=path,
            found=f"dimension {fields['dimension'][:40]}, sizes {fields['sizes'][:80]}",
            allowed="two to four axes, each with its size",
            fix=_FIX,
        )
    kind, encoding = fields.get("type", ""), fields.get("encoding", "")
    if kind.lower() not in _NRRD_BYTES:
        raise DataError("the type of the voxels is not known", file=path, found=kind[:40] or "no type", fix=_FIX)
    name = fields.get("data file", fields.get("datafile"))
    files = (path,) if name is None else _named_files(path, name, text, start)
    moved = any(fields.get(key, "0") not in ("0", "") for key in ("line skip", "lineskip", "byte skip", "byteskip"))
    packing: Packing = "other" if moved else _NRRD_PACKING.get(encoding.lower(), "other")
    return StoredVoxels(path, files, start if name is None else 0, packing, check_axes(path, sizes), _NRRD_BYTES[kind.lower()])


def _header(path: Path, ends: Callable[[str], bool], name: str) -> tuple[list[str], int]:
    """Lines of a header with the one that ends it, and the byte behind it.

    A file of voxels of its own may follow the last line without an end.
    """
    lines: list[str] = []
    start = 0
    with open(path, "rb") as handle:
        for raw in handle.read(_LONGEST).splitlines(keepends=True):
            line = raw.decode("latin-1").rstrip("\r\n")
            lines.append(line)
            start += len(raw)
            if ends(line):
                return lines, start
    if name == "NRRD" and path.name.lower().endswith(".nhdr"):  # no empty line is needed where no voxels follow
        return lines, start
    raise no_image(path, name)


def _named_files(path: Path, name: str, text: Sequence[str], start: int) -> tuple[Path, ...]:
    """The files of voxels that a header names: one, those of a list behind the header, or those of a numbered pattern."""
    word, *rest = name.split()
    if word.upper() == "LIST":
        with open(path, "rb") as handle:
            handle.seek(start)
            listed = handle.read(_LONGEST).decode("latin-1").splitlines()
        return tuple(beside(path, line) for line in listed if line.strip())
    if "%" in word and len(rest) >= 2 and all(n.lstrip("-").isdecimal() for n in rest):
        first, last, step = (*map(int, rest), 1)[:3]
        numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
        if len(numbers) > _LONGEST:
            raise DataError("the header names too many files of voxels", file=path, found=name[:80], fix=_FIX)
        return tuple(beside(path, _numbered(word, n)) for n in numbers)
    return (beside(path, name),)


def _numbered(pattern: str, number: int) -> str:
    try:
        return pattern % number
    except (TypeError, ValueError):
        return pattern


def _whole_numbers(fields: Mapping[str, str], keys: Sequence[str], path: Path) -> list[int]:
    """The numbers of the first key that is there."""
    key = next((k for k in keys if k in fields), None)
    words = fields[key].split() if key else []
    if not words or not all(word.lstrip("+-").isdecimal() and len(word) < 19 for word in words):
        raise DataError(
            f"the header needs whole numbers as '{keys[0]}'",
            file=path,
            found=fields[key][:80] if key else "nothing",
            fix=_FIX,
        )
    return [int(word) for word in words]


def _is_true(word: str | None) -> bool:
    return word is not None and word.strip().lower() in ("true", "1", "t", "yes")
