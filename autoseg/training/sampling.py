"""Training batches: a case and a centre are chosen, the transform is drawn, and only the voxels that it needs are read.

A batch is a function of (seed, step): nothing has to be remembered to resume, and the number of threads changes nothing. Only
noise is drawn by the device that a batch is made on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import AutosegError, DataError
from autoseg.imaging.geometry import Box, Triple
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet, State
from autoseg.nets.device import lacks_memory
from autoseg.plan import Configuration
from autoseg.plan.registries import AUGMENTATIONS
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes
from autoseg.preprocessing.store import StoredCase
from autoseg.training.augment import (
    Intensity,
    Spatial,
    apply_corruptions,
    apply_intensity,
    apply_intensity_on,
    apply_registered,
    apply_spatial,
    apply_spatial_on,
    apply_to_points,
    draw_corruptions,
    draw_intensity,
    draw_spatial,
    host_tensor,
    sampling_grid,
    source_box,
)

OFF_CENTRE = 0.25
"""Of the patch, along each axis: the farthest that a landmark lies from the centre of a patch that is drawn to show it. Were it
always in the centre, its position would be known without an image. Windows of a prediction share half of each other, so that one
of them shows a landmark at least that central."""


T = TypeVar("T")
_CasesByTarget = tuple[tuple[int, tuple[StoredCase, ...]], ...]  # targets, each with the cases that show it


@dataclass(frozen=True)
class Batch:
    """The samples of a training step, on the device that they were made on.

    Args:
        image: (B, C, *patch) float32; with one channel more, the numbers that a previous stage predicted, where there is one.
        label: (B, *patch) int64, the ignore index throughout where a case has no label map; no voxels, (B, 0), in a dataset of
            landmarks only.
        points: (B, N, d) float32 of the landmarks in patch voxels, inside the patch or not; NaN unless present.
        state: (B, N) int64 of `landmarks.State`. A landmark in another slice than the patch is absent, too.
        cases: names of the cases that the samples come from.
    """

    image: Tensor
    label: Tensor
    points: Tensor
    state: Tensor
    cases: tuple[str, ...]


@dataclass(frozen=True)
class _Patch:
    """A sample of a batch: image (C, *patch) and label (*patch), None for a dataset of landmarks only."""

    image: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class _RawPatch:
    """The voxels that a patch is made of on a GPU, and the transforms that are applied to them there."""

    case: StoredCase
    spatial: Spatial
    box: Box
    image: Tensor
    label: Tensor | None
    steps: tuple[Intensity, ...]

    def patch(self, grid: Tensor, mirrored_class: Tensor) -> _Patch:
        """Makes the patch on the device of `grid` and `mirrored_class`; for these see `apply_spatial_on`."""
        with _augment_errors_of(self.case):
            labels = [] if self.label is None else [self.label]
            image, labels = apply_spatial_on(self.spatial, grid, self.image, labels, mirrored_class)
            return _Patch(apply_intensity_on(image, self.steps) if self.steps else image, labels[0] if labels else None)


@dataclass(frozen=True)
class DrawnBatch:
    """The part of a batch that needs files and the CPU.

    Args:
        samples: B patches, or the voxels that a GPU makes them of.
        points: (B, N, 3) in patch voxels.
        state, cases: as in `Batch`.
    """

    samples: tuple[_Patch, ...] | tuple[_RawPatch, ...]
    points: np.ndarray
    state: np.ndarray
    cases: tuple[str, ...]


@dataclass(frozen=True)
class PatchSampler:
    """Draws batches from prepared cases as the plan says.

    The last samples of a batch, a share of `foreground_fraction`, show a structure or a landmark, one as often as the other where
    there are both. Where the plan's sampling is 'cases', a case is drawn first, and then one of the structures in it; where it
    is 'structures', a structure is drawn first, all with the same probability, and then one of the cases that show it. The other
    samples come from anywhere in any case.

    A target is a structure, by its class index, or a landmark, by its number plus the number of classes.

    Args:
        device: makes the patches, from voxels that are sent as they are stored; None for the CPU. With a previous stage, whose
            prediction is corrupted on the CPU, or an augmentation of a plugin, finished patches are sent.
        share: (i, n) for process i of n processes that share a batch: it gets every n-th sample.
    """

    cases: Sequence[StoredCase]
    configuration: Configuration
    labels: LabelSet
    seed: int
    device: torch.device | None = None
    share: tuple[int, int] = (0, 1)
    landmarks: LandmarkSet = NO_LANDMARKS

    def batch(self, step: int) -> Batch:
        """The batch of one step, or this process's share of it."""
        return self.finish(self.draw(step))

    def draw(self, step: int) -> DrawnBatch:
        """Draws the batch of a step as far as threads can ahead of it; takes no memory of a GPU."""
        rng = np.random.default_rng([self.seed, step])
        size = self.configuration.patch.batch_size
        n_forced = size - round(size * (1 - self.configuration.patch.foreground_fraction))
        cases = [self.cases[i] for i in rng.integers(len(self.cases), size=size)]
        targets: list[int | None] = [None] * size
        for i in range(size - n_forced, size):
            if self.configuration.patch.sampling == "structures" and any(self._cases_by_target):
                cases_by_target = _draw_kind(rng, self._cases_by_target)
                targets[i], candidates = cases_by_target[rng.integers(len(cases_by_target))]
                cases[i] = candidates[rng.integers(len(candidates))]
            else:
                shown = _draw_kind(rng, self._targets_of(cases[i]))
                targets[i] = int(rng.choice(shown)) if shown else None
        local = range(size)[self.share[0] :: self.share[1]]
        # a stream of its own for each sample, so that none needs to be made for the sake of the next
        drawn = [self._draw(np.random.default_rng([self.seed, step, 1 + i]), cases[i], targets[i]) for i in local]
        samples, points, state = zip(*drawn)
        return DrawnBatch(samples, np.stack(points).astype(np.float32), np.stack(state), tuple(cases[i].name for i in local))

    def finish(self, drawn: DrawnBatch) -> Batch:
        """Completes a batch; a GPU makes one sample after another."""
        device = self._patch_device
        patches = [s for s in drawn.samples if isinstance(s, _Patch)]
        if raw := [s for s in drawn.samples if isinstance(s, _RawPatch)]:  # then all are
            grids = sampling_grid([s.spatial for s in raw], [s.box for s in raw], device)
            patches = [s.patch(grid, self._mirrored_on_device) for s, grid in zip(raw, grids)]
        image = torch.stack([p.image.to(device, non_blocking=True) for p in patches])
        labels = [p.label.to(device, non_blocking=True) for p in patches if p.label is not None]
        label = torch.stack(labels).long() if labels else torch.empty((len(patches), 0), dtype=torch.int64, device=device)
        points, state = (host_tensor(x, device).to(device, non_blocking=True) for x in (drawn.points, drawn.state))
        axis = self.configuration.space.slice_axis
        if axis is not None:
            image, label = image.squeeze(2 + axis), label.squeeze(1 + axis) if labels else label
            points = points[..., [a for a in range(3) if a != axis]]
        return Batch(image, label, points, state, drawn.cases)

    @property
    def _patch_device(self) -> torch.device:
        return self.device or torch.device("cpu")

    @cached_property
    def _cases_by_target(self) -> tuple[_CasesByTarget, _CasesByTarget]:
        """Structures, and landmarks, that occur, each with the cases that show it."""
        n, n_landmarks = self.labels.n_classes, len(self.landmarks)
        targets = [(case, {i for kind in self._targets_of(case) for i in kind}) for case in self.cases]
        pairs = [(i, tuple(case for case, shown in targets if i in shown)) for i in range(n + n_landmarks)]
        return tuple((i, cases) for i, cases in pairs[1:n] if cases), tuple((i, cases) for i, cases in pairs[n:] if cases)

    def _targets_of(self, case: StoredCase) -> tuple[list[int], list[int]]:
        """Targets that a case shows: structures, and landmarks."""
        structures = [i for i in case.classes_present if i > 0]
        return structures, [self.labels.n_classes + i for i in case.landmarks_present]

    def _draw(
        self, rng: np.random.Generator, case: StoredCase, target: int | None
    ) -> tuple[_Patch | _RawPatch, np.ndarray, np.ndarray]:
        """Draws a sample that shows `target`, or anything for None, and the points and states of its landmarks."""
        training, window, labels = self.configuration.training, self.configuration.window, self.labels
        augment = training.augmentation != "none"
        with read_errors_of(case, "train"):
            if target is None:
                centres = None
            elif target < labels.n_classes:
                centres = case.foreground(target)
            else:
                centres = case.points[[target - labels.n_classes]]
                centres = centres + rng.uniform(-OFF_CENTRE, OFF_CENTRE, 3) * [0 if n == 1 else n for n in window]
        centre = _draw_centre(rng, case.shape, window, centres)
        spacing = case.placement.target.spacing
        spatial = draw_spatial(rng, window, centre, spacing=spacing, mirror_axes=training.mirror_axes, augment=augment)
        box = source_box(spatial)
        with read_errors_of(case, "train"):
            image, label = case.read(box)
        if label is None and not len(self.landmarks):
            raise DataError("a case without label map cannot be trained on", case=case.name, fix="autoseg preprocess")
        if label is None and labels.names:
            label = np.full(box.shape, labels.ignore_index, dtype=labels.index_dtype)
        with read_errors_of(case, "train"):
            previous = case.previous_prediction(box)
        with _augment_errors_of(case):
            points, state = apply_to_points(spatial, case.points, self._states_in_patch(case, spatial.centre), self.landmarks)
            steps = draw_intensity(rng, len(image)) if augment else ()
            if self.device is not None and previous is None and AUGMENTATIONS[training.augmentation] is None:
                raw_label = None if label is None else host_tensor(label, self.device)
                return _RawPatch(case, spatial, box, host_tensor(image, self.device), raw_label, steps), points, state
            maps = [m for m in (label, previous) if m is not None]
            image, maps = apply_spatial(spatial, box, image, maps, self._mirrored_class)
            image = apply_intensity(image, steps) if augment else image
            image = apply_registered(training.augmentation, rng, image)
            if previous is not None:
                corrupted = apply_corruptions(
                    maps[-1], draw_corruptions(rng, len(mirrored_previous_classes(labels, self.landmarks))) if augment else ()
                )
                image = np.concatenate([image, corrupted[None]], dtype=np.float32, casting="unsafe")
            patch_label = None if label is None else host_tensor(maps[0], self._patch_device)
            return _Patch(host_tensor(image, self._patch_device), patch_label), points, state

    def _states_in_patch(self, case: StoredCase, centre: np.ndarray) -> np.ndarray:
        """(N,) states of a case's landmarks in a patch around `centre`.

        In a patch of one slice, landmarks in other slices are absent. A case of one slice shows all.
        """
        axis = self.configuration.space.slice_axis
        if axis is None:
            return case.state
        slices = np.rint(case.points[:, axis]).clip(0, case.shape[axis] - 1)
        elsewhere = (case.state == State.PRESENT) & (slices != centre[axis])
        return np.where(elsewhere, State.ABSENT, case.state)

    @cached_property
    def _mirrored_on_device(self) -> Tensor:
        return torch.from_numpy(self._mirrored_class.astype(np.int64)).to(self.device)

    @cached_property
    def _mirrored_class(self) -> np.ndarray:
        """The partner, under an x mirror, of each number of a label map or of the previous stage's prediction."""
        labels, swapped = self.labels, mirrored_previous_classes(self.labels, self.landmarks)
        if not labels.names:
            return np.array(swapped, dtype=np.min_scalar_type(len(self.landmarks)))
        mirrored = np.arange(labels.ignore_index + 1, dtype=labels.index_dtype)
        mirrored[: labels.n_classes] = swapped
        return mirrored


@contextlib.contextmanager
def read_errors_of(case: StoredCase, action: str) -> Iterator[None]:
    """Turns any error while reading a prepared case into a DataError that names the case; out-of-memory passes through.

    Args:
        action: 'train' or 'validate', with which the message begins.

    Raises:
        DataError: the files of the case are damaged.
    """
    try:
        yield
    except DataError as error:
        error.problem, error.case = f"{action}: {error.problem}", case.name
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise DataError(
            f"{action}: the prepared case cannot be read",
            case=case.name,
            file=case.folder,
            found=f"{type(error).__name__}: {error}",
            fix="delete its files there, then autoseg preprocess",
        ) from error


@contextlib.contextmanager
def _augment_errors_of(case: StoredCase) -> Iterator[None]:
    """Adds the case's name to any error while augmenting, which is a bug; out-of-memory passes through."""
    try:
        yield
    except AutosegError as error:  # of a plugin
        error.case = case.name
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise RuntimeError(f"augmenting a patch: case {case.name}: {type(error).__name__}: {error}") from error


def _draw_kind(rng: np.random.Generator, kinds: tuple[T, T]) -> T:
    """Draws structures or landmarks, each as often as the other; where one of them is empty, the other one."""
    structures, landmarks = kinds
    if structures and landmarks:
        return kinds[rng.integers(2)]
    return structures or landmarks


def _draw_centre(rng: np.random.Generator, shape: Triple, window: Triple, candidates: np.ndarray | None) -> np.ndarray:
    """Draws the centre of a patch, in voxels of a case of `shape`.

    It is moved so that the patch lies inside the case, or the case inside the patch, and lies on a whole slice where the patch
    is one.

    Args:
        candidates: (N, 3) voxels, of which one is drawn; None for anywhere.
    """
    low, high = [], []
    for size, edge in zip(shape, window):
        inside = ((edge - 1) / 2, size - 1 - (edge - 1) / 2)
        low.append(min(inside) if edge > 1 else -0.5)
        high.append(max(inside) if edge > 1 else size - 0.5)
    if candidates is None:
        centre = rng.uniform(low, high)
    else:
        centre = np.clip(candidates[rng.integers(len(candidates))].astype(np.float64), low, high)
    on_slice = np.rint(centre).clip(0, np.array(shape) - 1)  # each slice is as likely as any other
    return np.where(np.array(window) == 1, on_slice, centre)
