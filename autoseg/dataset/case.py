"""Cases and datasets: files, names, and how files of landmarks are to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import first_few
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet, State, Unit
from autoseg.io import has_geometry, image_ending, names_in_words
from autoseg.system.progress import number_of


@dataclass(frozen=True)
class Case:
    """One image with its annotation: a patient, volume or slice.

    Args:
        images: image files in channel order, or one file with all channels.
        label: its label file.
        landmarks: the file with its landmarks, which may hold those of other cases, too.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    landmarks: Path | None = None


@dataclass(frozen=True)
class LandmarkRules:
    """Rules for reading files of landmarks.

    Args:
        values: of the landmarks, where label maps show each as a spot; none where the files list
            points.
        unlisted: state of a landmark that a case's file does not list.
    """

    values: tuple[int, ...] = ()
    unlisted: State = State.ABSENT


@dataclass(frozen=True)
class Dataset:
    """A dataset: its channels, structures, landmarks and training cases, ordered by case name."""

    name: str
    root: Path
    channels: tuple[str, ...]
    labels: LabelSet
    cases: tuple[Case, ...]
    landmarks: LandmarkSet = NO_LANDMARKS
    landmark_rules: LandmarkRules = LandmarkRules()

    def __repr__(self) -> str:
        lines = [
            f"Dataset {self.name}: {number_of(len(self.cases), 'case')} in {self.root}",
            f"channels: {names_in_words(self.channels)}",
        ]
        return "\n  ".join([*lines, *names_to_learn(self.labels, self.landmarks)])

    @property
    def unit(self) -> Unit:
        """Unit of lengths in its images."""
        return unit_of(self.cases)


@dataclass(frozen=True)
class Description:
    """Common properties of all cases of a dataset: channels in order, structures and landmarks."""

    channels: tuple[str, ...]
    labels: LabelSet
    landmarks: LandmarkSet = NO_LANDMARKS
    landmark_rules: LandmarkRules = LandmarkRules()


def names_to_learn(labels: LabelSet, landmarks: LandmarkSet) -> list[str]:
    """Lines that tell the number and the first names of structures and of landmarks."""
    kinds = (("structures", labels.names), ("landmarks", landmarks.names))
    return [f"{kind}: {len(names)} ({first_few(names, 8)})" for kind, names in kinds if names]


def unit_of(cases: Sequence[Case]) -> Unit:
    """Unit of lengths in the images of cases, all volumes or all pictures; mm without cases."""
    return "mm" if not cases or has_geometry(cases[0].images[0]) else "px"


def case_name(path: Path) -> str:
    """Case name of an image file: 'liver_3' for 'liver_3.nii.gz'."""
    ending = image_ending(path)
    return path.name[: -len(ending)] if ending else path.stem
