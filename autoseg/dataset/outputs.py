"""Images to predict, and paths of the results that are written for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.dataset.case import Case, case_name
from autoseg.dataset.folders import channel_number, group_by_channel
from autoseg.errors import UsageError
from autoseg.io import IMAGE_ENDINGS, has_geometry, label_ending, probabilities_ending

MOST_CHANNELS = 4  # of files that are taken for channels of one image without knowing it; brain tumours come with four
PROBABILITIES = "_probabilities"  # behind the case name, in the file name of class probabilities


def images_in(folder: Path, n_channels: int) -> tuple[Case, ...]:
    """Cases to predict: every image of a folder, or that of one file; channels are grouped by their
    `_0000` suffix.

    Raises:
        UsageError: no such folder, or no image in it.
    """
    if folder.is_file():
        return (_case_of(folder, n_channels),)
    if not folder.is_dir():
        raise UsageError("no such file or folder", file=folder, fix="give a folder of images, or one image")
    cases = tuple(Case(name, files, None) for name, files in group_by_channel(folder, n_channels).items())
    if not cases:
        raise UsageError("no image in the folder", file=folder, allowed=", ".join(IMAGE_ENDINGS))
    return cases


def split_other_channels(cases: Sequence[Case]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases for a model of one channel, and those whose files look like one channel of an image with several.

    `a_0000` and `a_0001` do, unless other images have other numbers of such files: then they are numbered images.

    Args:
        cases: of one file each, as `images_in` lists them.

    Returns:
        Cases to predict, named without `_0000`, and the others.
    """
    marks = {case.name: mark for case in cases if (mark := channel_number(case.name))}
    numbers: dict[str, set[int]] = defaultdict(set)
    for stem, number in marks.values():
        numbers[stem].add(number)
    several = {stem: channels for stem, channels in numbers.items() if len(channels) > 1}
    counts = {len(channels) for channels in several.values()}
    is_numbered = len(counts) > 1 or any(max(channels) >= min(len(channels), MOST_CHANNELS) for channels in several.values())
    if not several or is_numbered:
        return tuple(cases), ()
    other = tuple(case for case in cases if case.name in marks and marks[case.name][0] in several)
    names = {case.name for case in cases}
    rest = []
    for case in cases:
        stem, number = marks.get(case.name, (case.name, 0))
        if stem not in several:
            rest.append(replace(case, name=stem) if number == 0 and stem not in names else case)
    return tuple(rest), other


def output_path(out: Path, case: Case) -> Path:
    """Path of a case's label map, in the format of its first image."""
    return out / f"{case.name}{label_ending(case.images[0])}"


def probabilities_path(out: Path, case: Case) -> Path:
    """Path of a case's class probabilities, in its first image's format; .npy for natural images."""
    return out / f"{case.name}{PROBABILITIES}{probabilities_ending(case.images[0])}"


def landmarks_path(out: Path, case: Case, ending: str = "") -> Path:
    """Path of a case's landmarks.

    Args:
        ending: of `io.LANDMARK_ENDINGS`; by default that of 3D Slicer, or a table for natural
            images.
    """
    return out / f"{case.name}{ending or ('.mrk.json' if has_geometry(case.images[0]) else '.csv')}"


def check_output_folder(cases: Sequence[Case], out: Path) -> None:
    """Check that results do not go among the images.

    Raises:
        UsageError: an image lies in `out`, where results would replace it or be taken for an image
            the next time.
    """
    folders = {image.parent for case in cases for image in case.images}
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError("the results would lie among the images", file=out, fix="give -o a folder of its own")


def _case_of(image: Path, n_channels: int) -> Case:
    """Case of an image file: `a_0000` stands for all channel files of `a` beside it."""
    stem = case_name(image)
    mark = channel_number(stem)
    if mark is None or mark[1] >= n_channels:
        return Case(stem, (image,), None)
    files = [image.with_name(f"{mark[0]}_{i:04d}{image.name[len(stem) :]}") for i in range(n_channels)]
    return Case(mark[0], tuple(f for f in files if f.is_file()), None)
