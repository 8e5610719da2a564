"""From a folder to a dataset, whatever its layout."""

from __future__ import annotations

from pathlib import Path

from autoseg.dataset.case import Case, Dataset, Description
from autoseg.dataset.described import decathlon_cases, describe, read_meta
from autoseg.dataset.folders import folder_cases, image_and_label_folder
from autoseg.dataset.inferred import channels_per_case, infer_channels, infer_labels
from autoseg.dataset.manifest import MANIFEST, manifest_cases
from autoseg.errors import DataError
from autoseg.io import IMAGE_ENDINGS


def open_dataset(root: Path, values: Path | None = None) -> Dataset:
    """Lists the cases of a dataset, and says what they have in common.

    That is what dataset.json says; then no image is opened. Without one, channels are taken from the headers of all images
    and structures ('structure 1', …) from the values in all label maps.

    Args:
        values: a file that keeps the values found in label maps, so that each is read once.

    Raises:
        DataError: a malformed dataset.json or table of cases, no case, or label maps that are none.
    """
    about, table = root / "dataset.json", root / MANIFEST
    meta = read_meta(about) if about.is_file() or not (table.is_file() or image_and_label_folder(root)) else None
    description = None if meta is None else describe(meta, about)
    if table.is_file():
        cases = manifest_cases(table)
    elif meta and meta.get("training"):
        cases = decathlon_cases(root, meta)
    else:
        cases = folder_cases(root, len(description.channels) if description else channels_per_case(root))
    if not cases:
        raise DataError(
            "no training case",
            file=table if table.is_file() else (image_and_label_folder(root) or (root / "imagesTr",))[0],
            allowed=f"images ending in {', '.join(IMAGE_ENDINGS)}",
        )
    _check_names(cases, table if table.is_file() else about)
    cases.sort(key=lambda c: c.name)
    if description is None:
        description = Description(infer_channels(cases), infer_labels(cases, root, values))
    return Dataset(root.name, root, description.channels, description.labels, tuple(cases))


def read_description(root: Path) -> Description:
    """What dataset.json says about all cases, without looking for them.

    Raises:
        DataError: dataset.json is missing or malformed.
    """
    about = root / "dataset.json"
    return describe(read_meta(about), about)


def _check_names(cases: list[Case], source: Path) -> None:
    names = [c.name for c in cases]
    if len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise DataError("two cases have the same name", file=source, found=", ".join(twice[:5]))
