"""Where cases are found. Datasets are read in place, nothing is copied or renamed.

Two layouts: Medical Segmentation Decathlon (`modality`, labels as value -> name) and nnU-Net v2 (`channel_names`,
labels as name -> value, one file a channel: `case_0000.nii.gz`).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import DataError, UsageError, nearest
from autoseg.io import IMAGE_ENDINGS, image_ending
from autoseg.labels import LabelSet

PROBABILITIES = "_probabilities"  # behind the case name, in the file name of class probabilities
_SINGLE_FILE = {".mhd": ".mha", ".nhdr": ".nrrd"}  # a header with a second file beside it cannot be written atomically


@dataclass(frozen=True)
class Case:
    """One patient, scan or slice: image files in channel order (or one file with all channels) and its label file."""

    name: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """Names, channels, structures and the training cases, ordered by case name."""

    name: str
    root: Path
    channels: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Description:
    """What all cases of a dataset have in common: channels in order, and structures."""

    channels: tuple[str, ...]
    labels: LabelSet


def find_dataset(wanted: str, places: Sequence[Path]) -> Path:
    """The folder that `-d` means: a path, a folder name, `Task01` or `1`.

    Args:
        places: folders to search, in order.

    Raises:
        UsageError: nothing fits, or more than one folder does.
    """
    direct = Path(wanted).expanduser()
    if (direct / "dataset.json").is_file():
        return direct.resolve()
    pattern = (
        re.compile(rf"(Task|Dataset)0*{int(wanted)}_.*") if wanted.isdecimal() else re.compile(rf"{re.escape(wanted)}(_.*)?")
    )
    seen: list[str] = []
    found: list[Path] = []
    for place in dict.fromkeys(p.expanduser().resolve() for p in places):
        if not place.is_dir():
            continue
        folders = sorted(p for p in place.iterdir() if (p / "dataset.json").is_file())
        seen += [str(p) for p in folders]
        found += [p for p in folders if pattern.fullmatch(p.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{wanted}' could be several datasets", found=", ".join(map(str, found)), fix="give the path")
    if direct.is_dir():
        raise UsageError(
            "the folder holds no dataset.json", file=direct, fix="point -d at the folder with imagesTr, labelsTr and dataset.json"
        )
    raise UsageError(
        f"no dataset '{wanted}'{nearest(wanted, [Path(p).name for p in seen])}",
        found=", ".join(seen[:8]) or "no dataset at all",
        allowed="a path, a folder name, Task01 or 1; looked in " + ", ".join(dict.fromkeys(str(p) for p in places)),
        fix="give the path of the folder with dataset.json",
    )


def search_places() -> list[Path]:
    """Folders in which `find_dataset` looks when nothing else is said: here, ./data, and the two optional variables."""
    optional = [os.environ.get("AUTOSEG_DATA"), os.environ.get("nnUNet_raw")]
    return [Path.cwd(), Path.cwd() / "data", *(Path(p) for p in optional if p)]


def open_dataset(root: Path) -> Dataset:
    """Reads dataset.json and lists the cases; no image is opened.

    Raises:
        DataError: dataset.json is missing or malformed, or there is no case.
    """
    about = root / "dataset.json"
    meta = _read_meta(about)
    description = _describe(meta, about)
    names = description.channels
    cases = _decathlon_cases(root, meta) if meta.get("training") else _folder_cases(root, len(names))
    if not cases:
        raise DataError("no training case", file=root / "imagesTr", allowed=f"images ending in {', '.join(IMAGE_ENDINGS)}")
    names_seen = [c.name for c in cases]
    twice = sorted({n for n in names_seen if names_seen.count(n) > 1}) if len(set(names_seen)) < len(names_seen) else []
    if twice:
        raise DataError("two cases have the same name", file=about, found=", ".join(twice[:5]))
    return Dataset(root.name, root, names, description.labels, tuple(sorted(cases, key=lambda c: c.name)))


def read_description(root: Path) -> Description:
    """What dataset.json says about all cases, without looking for them.

    Raises:
        DataError: dataset.json is missing or malformed.
    """
    about = root / "dataset.json"
    return _describe(_read_meta(about), about)


def images_in(folder: Path, n_channels: int) -> tuple[Case, ...]:
    """Cases to predict: every image of a folder, or that of one file; channels are grouped by the `_0000` suffix if there is one.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    if folder.is_file():
        return (_case_of(folder, n_channels),)
    if not folder.is_dir():
        raise UsageError("no such file or folder", file=folder)
    cases = tuple(Case(name, files, None) for name, files in _grouped(folder, n_channels).items())
    if not cases:
        raise UsageError("no image in the folder", file=folder, allowed=", ".join(IMAGE_ENDINGS))
    return cases


def output_path(out: Path, case: Case) -> Path:
    """Name of a case's label map, in the format of its first image."""
    return _beside_label_map(out, case, "")


def probabilities_path(out: Path, case: Case) -> Path:
    """Name of a case's class probabilities."""
    return _beside_label_map(out, case, PROBABILITIES)


def check_apart(cases: Sequence[Case], out: Path) -> None:
    """
    Raises:
        UsageError: an image lies in `out`, where results would replace it or be taken for an image the next time.
    """
    if out.resolve() in {folder.resolve() for folder in {image.parent for case in cases for image in case.images}}:
        raise UsageError("the results would lie among the images", file=out, fix="give -o a folder of its own")


def _beside_label_map(out: Path, case: Case, suffix: str) -> Path:
    ending = image_ending(case.images[0]) or ".nii.gz"
    return out / f"{case.name}{suffix}{_SINGLE_FILE.get(ending, ending)}"


def _case_of(image: Path, n_channels: int) -> Case:
    """The case that a file belongs to: `a_0000` stands for all channel files of `a` beside it."""
    stem = case_name(image)
    match = re.fullmatch(r"(.+)_(\d{4})", stem)
    if not match or int(match[2]) >= n_channels:
        return Case(stem, (image,), None)
    files = [image.with_name(f"{match[1]}_{i:04d}{image.name[len(stem) :]}") for i in range(n_channels)]
    return Case(match[1], tuple(f for f in files if f.is_file()), None)


def _read_meta(about: Path) -> dict[str, Any]:
    try:
        meta = json.loads(about.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError("no dataset.json", file=about, fix="write one with 'labels' and 'channel_names' or 'modality'") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("dataset.json is not valid JSON", file=about, found=str(error)) from error
    if not isinstance(meta, dict):
        raise DataError("dataset.json must hold one object", file=about, found=f"a {type(meta).__name__}", allowed="{...}")
    return meta


def _describe(meta: dict[str, Any], about: Path) -> Description:
    channels = meta.get("channel_names") or meta.get("modality")
    if not isinstance(channels, dict) or not channels:
        raise DataError(
            "dataset.json does not name the channels",
            file=about,
            found=f"keys {', '.join(meta)}",
            fix='add "channel_names": {"0": "CT"} (nnU-Net v2) or "modality": {"0": "CT"} (Decathlon)',
        )
    names = tuple(str(channels[k]) for k in sorted(channels, key=_channel_number(about)))
    return Description(names, _labels(meta.get("labels"), about))


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
        raise DataError("dataset.json has no 'labels'", file=about, fix='add "labels": {"background": 0, "liver": 1}')
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


def _decathlon_cases(root: Path, meta: dict[str, Any]) -> list[Case]:
    cases = []
    for entry in meta["training"]:
        if not isinstance(entry, dict) or "image" not in entry:
            raise DataError("'training' must list {image, label} pairs", file=root / "dataset.json", found=str(entry)[:80])
        image = root / entry["image"]
        label = root / entry["label"] if "label" in entry else None
        cases.append(Case(case_name(image), (image,), label))
    return cases


def _folder_cases(root: Path, n_channels: int) -> list[Case]:
    folder = root / "imagesTr"
    if not folder.is_dir():
        raise DataError("no folder imagesTr", file=root, found=", ".join(sorted(p.name for p in root.iterdir())[:8]))
    labels = {case_name(p): p for p in (root / "labelsTr").glob("*") if image_ending(p)} if (root / "labelsTr").is_dir() else {}
    expected = {p.name: p for p in labels.values()}
    cases = []
    for name, files in _grouped(folder, n_channels).items():
        label = labels.get(name) or expected.get(files[0].name) or root / "labelsTr" / f"{name}{image_ending(files[0])}"
        cases.append(Case(name, files, label))
    return cases


def _grouped(folder: Path, n_channels: int) -> dict[str, tuple[Path, ...]]:
    """Image files by case name. `_0000` marks a channel if every file ends in the number of one, else it belongs to the name."""
    files = sorted(p for p in folder.iterdir() if image_ending(p) and not p.name.startswith("_"))
    stems = [case_name(p) for p in files]
    if twice := [name for name, count in Counter(stems).items() if count > 1]:
        raise DataError("two images have the same name", file=folder, found=", ".join(twice[:5]), fix="keep one format of each")
    marked = [re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems]
    if not all(m and int(m[2]) < n_channels for m in marked):
        return {case_name(p): (p,) for p in files}
    grouped: dict[str, tuple[Path, ...]] = {}
    for path, match in zip(files, marked):
        assert match is not None
        grouped[match[1]] = (*grouped.get(match[1], ()), path)
    return grouped


def case_name(path: Path) -> str:
    """File name without its image ending: 'liver_3.nii.gz' is case 'liver_3'."""
    ending = image_ending(path)
    return path.name[: -len(ending)] if ending else path.stem
