"""Reading dataset.json of the Medical Segmentation Decathlon and of nnU-Net v2.

The Decathlon has `modality` and labels as value -> name, nnU-Net `channel_names` and labels as name
-> value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, Description, case_name
from autoseg.dataset.landmark_files import landmark_source
from autoseg.dataset.landmark_names import naming_file, parse_landmarks
from autoseg.errors import DataError, first_few
from autoseg.imaging.labels import LabelSet
from autoseg.system.documents import read_json, shown
from autoseg.system.names import check_path, check_title

BACKGROUND = {
    *("background", "bg", "back", "none", "nothing", "clear", "clear label", "unlabelled", "unlabeled", "unlabelled tissue"),
    *("void", "empty", "unknown", "undefined", "other", "others", "rest", "exterior", "outside", "air", "zero", "0", "null"),
}
"""Names of the value 0 that mean that nothing is there."""
LONGEST_NUMBER = 9  # digits of a key that is the number of a channel or the value of a structure


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read dataset.json.

    Raises:
        DataError: dataset.json is missing or not a JSON object.
    """
    if not path.exists():
        raise DataError("no dataset.json", file=path, fix="write one with 'labels' and 'channel_names' or 'modality'")
    meta = read_json(path, what="dataset.json")
    if not isinstance(meta, dict):
        raise DataError("dataset.json must hold one object", file=path, found=f"a {type(meta).__name__}", allowed="{...}")
    return meta


def parse_description(meta: dict[str, Any], path: Path) -> Description:
    """Channels, structures and landmarks of a dataset; the landmarks may be named in their files
    only.

    Raises:
        DataError: they are missing or malformed.
        LabelError: structures or landmarks that contradict each other.
    """
    channels = meta.get("channel_names") or meta.get("modality")
    if not isinstance(channels, dict) or not channels:
        raise DataError(
            "dataset.json does not name the channels",
            file=path,
            found=f"keys {', '.join(meta)}",
            fix='add "channel_names": {"0": "CT"} (nnU-Net v2) or "modality": {"0": "CT"} (Decathlon)',
        )
    names = tuple(_name(channels[key], "a channel", path) for key in sorted(channels, key=lambda key: _channel_number(key, path)))
    landmarks, rules = parse_landmarks(meta, path)
    source = landmark_source(path.parent) if "landmarks" not in meta else None
    labels = LabelSet((), ())
    if meta.get("labels") or not (landmarks.names or source):
        labels = _parse_labels(meta.get("labels"), path)
    if not (labels.names or landmarks.names or source):
        raise DataError(
            "the dataset has neither a structure besides background nor a landmark",
            file=path,
            fix='name structures under "labels" or landmarks under "landmarks"',
        )
    return Description(names, labels, landmarks, rules)


def _channel_number(key: str, path: Path) -> int:
    if not key.isdecimal() or len(key) > LONGEST_NUMBER:
        raise DataError(
            "channels are numbered from 0 in dataset.json", file=path, found=shown(key), allowed='"0": "CT", "1": "PET"'
        )
    return int(key)


def _parse_labels(raw: Any, path: Path) -> LabelSet:
    """Structures from names by value (Decathlon) or values by name (nnU-Net v2)."""
    if not isinstance(raw, dict) or not raw:
        raise DataError(
            "dataset.json has no 'labels'",
            file=path,
            fix='add "labels": {"background": 0, "liver": 1}, or "landmarks": ["nose"]',
        )
    by_value = all(k.isdecimal() and len(k) <= LONGEST_NUMBER for k in raw)
    pairs = [(_name(v, "a structure", path), int(k)) for k, v in raw.items()] if by_value else list(raw.items())
    pairs = [(n, v[0]) if isinstance(v, list) and len(v) == 1 else (n, v) for n, v in pairs]  # a region of one value
    regions = [n for n, v in pairs if isinstance(v, list)]
    if regions:
        raise DataError(
            "labels made of several values (regions) are not supported",
            file=path,
            found=", ".join(regions),
            fix="give each value a name of its own; combine the masks after prediction",
        )
    malformed = [f"{n}: {shown(v)}" for n, v in pairs if not isinstance(v, int) or isinstance(v, bool)]
    if malformed:
        raise DataError("label values must be whole numbers", file=path, found=first_few(malformed, 10))
    for name, _ in pairs:
        check_title(name, "a structure", DataError, path)
    _check_background(pairs, path)
    ignore = next((v for n, v in pairs if n.lower() == "ignore"), None)
    structures = sorted(((v, n) for n, v in pairs if v != 0 and n.lower() != "ignore"))
    with naming_file(path):
        return LabelSet(tuple(n for _, n in structures), tuple(v for v, _ in structures), ignore)


def _check_background(pairs: list[tuple[str, int]], path: Path) -> None:
    """Check that the value 0 is the background's, and the background's alone: that is what nothing is learnt of."""
    named = [(n.strip().lower(), n, v) for n, v in pairs]
    wrong = [f"{n}: {v}" for word, n, v in named if (word not in BACKGROUND if v == 0 else word == "background")]
    if wrong:
        raise DataError(
            "the value 0 is background, so no structure can have it",
            file=path,
            found=", ".join(wrong),
            allowed='"background": 0, and structures from 1 on',
            fix="give the structure another value, in the label maps too; or call it background if it is that",
        )


def _name(raw: Any, owner: str, path: Path) -> str:
    """The name of a channel or structure; a number will do."""
    if not isinstance(raw, (str, int, float)) or isinstance(raw, bool):
        raise DataError(f"{owner} needs a name in dataset.json", file=path, found=shown(raw), allowed='a text, such as "CT"')
    check_title(str(raw), owner, DataError, path)
    return str(raw)


def decathlon_cases(root: Path, meta: dict[str, Any]) -> list[Case]:
    """List the cases of a Decathlon dataset, without opening their files.

    Raises:
        DataError: an entry is not a pair of image and label.
    """
    path, entries = root / "dataset.json", meta["training"]
    if not isinstance(entries, list):
        raise DataError("'training' must be a list", file=path, found=shown(entries), allowed='[{"image": …, "label": …}, …]')
    cases = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or "image" not in entry:
            raise DataError("'training' must list {image, label} pairs", file=path, found=f"{shown(entry)} in training[{i}]")
        files = {key: _file(entry[key], f"training[{i}].{key}", path) for key in ("image", "label", "landmarks") if key in entry}
        cases.append(Case(case_name(files["image"]), (files["image"],), files.get("label"), files.get("landmarks")))
    return cases


def _file(raw: Any, key: str, path: Path) -> Path:
    """The file that a key of dataset.json names."""
    if not isinstance(raw, str) or not raw:
        raise DataError(f"'{key}' must name a file", file=path, found=shown(raw), fix="leave the key out where there is none")
    check_path(raw, f"'{key}'", DataError, path)
    return path.parent / raw
