"""What a dataset consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet, State, Unit
from autoseg.io import has_geometry, image_ending


@dataclass(frozen=True)
class Case:
    """One patient, scan or slice: image files in channel order (or one file with all channels), its label file, and the file
    with its landmarks, which may hold those of other cases, too."""

    name: str
    images: tuple[Path, ...]
    label: Path | None
    landmarks: Path | None = None


@dataclass(frozen=True)
class LandmarkRules:
    """How files of landmarks are meant.

    Args:
        values: of the landmarks, where label maps show each as a spot; none where the files list points.
        unlisted: what is known of a landmark that a case's file does not have.
    """

    values: tuple[int, ...] = ()
    unlisted: State = State.ABSENT


@dataclass(frozen=True)
class Dataset:
    """Names, channels, structures, the training cases, ordered by case name, and landmarks."""

    name: str
    root: Path
    channels: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    landmarks: LandmarkSet = NO_LANDMARKS
    landmark_rules: LandmarkRules = LandmarkRules()

    @property
    def unit(self) -> Unit:
        """Of lengths in its images."""
        return unit_of(self.cases)


@dataclass(frozen=True)
class Description:
    """What all cases of a dataset have in common: channels in order, structures and landmarks."""

    channels: tuple[str, ...]
    labels: LabelSet
    landmarks: LandmarkSet = NO_LANDMARKS
    landmark_rules: LandmarkRules = LandmarkRules()


def unit_of(cases: Sequence[Case]) -> Unit:
    """The unit of lengths in the images of cases that are of one kind; mm without any."""
    return "mm" if not cases or has_geometry(cases[0].images[0]) else "px"


def case_name(path: Path) -> str:
    """File name without its image ending: 'liver_3.nii.gz' is case 'liver_3'."""
    ending = image_ending(path)
    return path.name[: -len(ending)] if ending else path.stem
