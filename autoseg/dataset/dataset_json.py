"""Reading dataset.json of the Medical Segmentation Decathlon and of nnU-Net v2.

The Decathlon has `modality` and labels as value -> name, nnU-Net `channel_names` and labels as name
-> value.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, Description, case_name
from autoseg.dataset.landmark_files import landmark_source
from autoseg.dataset.landmark_names import parse_landmarks
from autoseg.errors import DataError
from autoseg.imaging.labels import LabelSet


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read dataset.json.

    Raises:
        DataError: dataset.json is missing or not a JSON object.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError("no dataset.json", file=path, fix="write one with 'labels' and 'channel_names' or 'modality'") from None
    except (ValueError, RecursionError) as error:
        raise DataError("dataset.json is not valid JSON", file=path, found=str(error)) from error
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
    names = tuple(str(channels[key]) for key in sorted(channels, key=lambda key: _channel_number(key, path)))
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
    if not str(key).isdecimal():
        raise DataError("channels are numbered from 0 in dataset.json", file=path, found=key, allowed='"0": "CT", "1": "PET"')
    return int(key)


def _parse_labels(raw: Any, path: Path) -> LabelSet:
    """Structures from names by value (Decathlon) or values by name (nnU-Net v2)."""
    if not isinstance(raw, dict) or not raw:
        raise DataError(
            "dataset.json has no 'labels'",
            file=path,
            fix='add "labels": {"background": 0, "liver": 1}, or "landmarks": ["nose"]',
        )
    by_value = all(str(k).isdecimal() for k in raw)
    pairs = [(str(v), int(k)) for k, v in raw.items()] if by_value else list(raw.items())
    regions = [n for n, v in pairs if isinstance(v, list)]
    if regions:
        raise DataError(
            "labels made of several values (regions) are not supported",
            file=path,
            found=", ".join(regions),
            fix="give each value a name of its own; combine the masks after prediction",
        )
    malformed = [f"{n}: {v}" for n, v in pairs if not isinstance(v, int) or isinstance(v, bool)]
    if malformed:
        raise DataError("label values must be whole numbers", file=path, found=", ".join(malformed))
    ignore = next((v for n, v in pairs if n.lower() == "ignore"), None)
    structures = sorted(((v, n) for n, v in pairs if v != 0 and n.lower() != "ignore"))
    return LabelSet(tuple(n for _, n in structures), tuple(v for v, _ in structures), ignore)


def decathlon_cases(root: Path, meta: dict[str, Any]) -> list[Case]:
    """List the cases of a Decathlon dataset, without opening their files.

    Raises:
        DataError: an entry is not a pair of image and label.
    """
    cases = []
    for entry in meta["training"]:
        if not isinstance(entry, dict) or "image" not in entry:
            raise DataError("'training' must list {image, label} pairs", file=root / "dataset.json", found=str(entry)[:80])
        image = root / entry["image"]
        label = root / entry["label"] if "label" in entry else None
        landmarks = root / entry["landmarks"] if "landmarks" in entry else None
        cases.append(Case(case_name(image), (image,), label, landmarks))
    return cases
