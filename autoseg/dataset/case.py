"""What a dataset consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.io import image_ending
from autoseg.labels import LabelSet


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


def case_name(path: Path) -> str:
    """File name without its image ending: 'liver_3.nii.gz' is case 'liver_3'."""
    ending = image_ending(path)
    return path.name[: -len(ending)] if ending else path.stem
