"""dataset.json of the Medical Segmentation Decathlon (`modality`, labels as value -> name) and of nnU-Net v2 (`channel_names`,
labels as name -> value)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoseg.dataset.case import Case, Description, case_name
from autoseg.dataset.landmark_files import landmark_source
from autoseg.dataset.landmark_names import described_landmarks
from autoseg.errors import DataError
from autoseg.imaging.labels import LabelSet


def read_meta(about: Path) -> dict[str, Any]:
    """
    Raises:
        DataError: dataset.json is missing or no JSON object.
    """
    try:
        meta = json.loads(about.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError("no dataset.json", file=about, fix="write one with 'labels' and 'channel_names' or 'modality'") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("dataset.json is not valid JSON", file=about, found=str(error)) from error
    if not isinstance(meta, dict):
        raise DataError("dataset.json must hold one object", file=about, found=f"a {type(meta).__name__}", allowed="{...}")
    return meta


def describe(meta: dict[str, Any], about: Path) -> Description:
    """Channels, structures and landmarks, which may be named in their files only.

    Raises:
        DataError: they are missing or malformed.
        LabelError: structures or landmarks that contradict each other.
    """
    channels = meta.get("channel_names") or meta.get("modality")
    if not isinstance(channels, dict) or not channels:
        raise DataError(
            "dataset.json does not name the channels",
            file=about,
            found=f"keys {', '.join(meta)}",
            fix='add "channel_names": {"0": "CT"} (nnU-Net v2) or "modality": {"0": "CT"} (Decathlon)',
        )
    names = tuple(str(channels[k]) for k in sorted(channels, key=_channel_number(about)))
    landmarks, rules = described_landmarks(meta, about)
    source = landmark_source(about.parent) if "landmarks" not in meta else None
    labels = LabelSet((), ()) if not meta.get("labels") and (landmarks.names or source) else _labels(meta.get("labels"), about)
    if not (labels.names or landmarks.names or source):
        raise DataError(
            "the dataset has neither a structure besides background nor a landmark",
            file=about,
            fix='name structures under "labels" or landmarks under "landmarks"',
        )
    return Description(names, labels, landmarks, rules)


def _channel_number(about: Path):  # type: ignore[no-untyped-def]
    def number(key: str) -> int:
        if not str(key).isdecimal():
            raise DataError(
                "channels are numbered from 0 in dataset.json", file=about, found=key, allowed='"0": "CT", "1": "PET"'
            )
        return int(key)

    return number


def _labels(raw: Any, about: Path) -> LabelSet:
    if not isinstance(raw, dict) or not raw:
        raise DataError(
            "dataset.json has no 'labels'",
            file=about,
            fix='add "labels": {"background": 0, "liver": 1}, or "landmarks": ["nose"]',
        )
    by_value = all(str(k).isdecimal() for k in raw)
    pairs = [(str(v), int(k)) for k, v in raw.items()] if by_value else list(raw.items())
    regions = [n for n, v in pairs if isinstance(v, list)]
    if regions:
        raise DataError(
            "labels made of several values (regions) are not supported",
            file=about,
            found=", ".join(regions),
            fix="give each value a name of its own; combine the masks after prediction",
        )
    wrong = [n for n, v in pairs if not isinstance(v, int) or isinstance(v, bool)]
    if wrong:
        raise DataError(
            "label values must be whole numbers", file=about, found=", ".join(f"{n}: {dict(pairs)[n]}" for n in wrong)
        )
    ignore = next((v for n, v in pairs if n.lower() == "ignore"), None)
    kept = sorted(((v, n) for n, v in pairs if v != 0 and n.lower() != "ignore"))
    return LabelSet(tuple(n for _, n in kept), tuple(v for v, _ in kept), ignore)


def decathlon_cases(root: Path, meta: dict[str, Any]) -> list[Case]:
    """The cases that a Decathlon dataset lists; no file is opened.

    Raises:
        DataError: an entry that is no pair of image and label.
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
