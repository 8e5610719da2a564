"""Training batches: choose a case and a place, draw the transform, read only the voxels it needs.

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

from autoseg.errors import DataError
from autoseg.imaging.geometry import Box, Triple
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet, State
from autoseg.nets.device import lacks_memory
from autoseg.plan import Configuration
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes
from autoseg.preprocessing.store import StoredCase
from autoseg.training.augment import (
    Intensity,
    Spatial,
    apply_intensity,
    apply_intensity_on,
    apply_previous,
    apply_spatial,
    apply_spatial_on,
    apply_to_points,
    draw_intensity,
    draw_previous,
    draw_spatial,
    sampled_at,
    source_box,
    to_send,
)

OFF_CENTRE = 0.25
"""Of the patch: so far from its centre along each axis a landmark may lie that a patch is drawn to show. Always in the centre,
its place would be known without looking. Windows of a prediction share half of each other, so one shows it as central as that."""


T = TypeVar("T")
_Showing = tuple[tuple[int, tuple[StoredCase, ...]], ...]


@dataclass(frozen=True)
class Batch:
    """What the network learns from in a step; on the device that it was made on.

    Args:
        image: (B, C, *patch) float32. After an earlier stage with one channel more: what it found, as numbers.
        label: (B, *patch) int64, the ignore index throughout where a case has no label map; no voxels, (B, 0), in a dataset of
            landmarks only.
        points: (B, N, d) float32 of the landmarks in patch voxels, inside the patch or not; NaN unless present.
        state: (B, N) int64 of `landmarks.State`. Absent is also what lies in another slice than the patch.
        cases: names of those that the samples come from.
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
class _Source:
    """The voxels that a patch is made of, on their way to a GPU, and what happens to them there."""

    case: StoredCase
    spatial: Spatial
    box: Box
    image: Tensor
    label: Tensor | None
    steps: tuple[Intensity, ...]

    def patch(self, where: Tensor, mirrored: Tensor) -> _Patch:
        """On the device of `where`, which says where its voxels lie in the box, and of `mirrored`."""
        with _augmenting(self.case):
            labels = [] if self.label is None else [self.label]
            image, labels = apply_spatial_on(self.spatial, where, self.image, labels, mirrored)
            return _Patch(apply_intensity_on(image, self.steps) if self.steps else image, labels[0] if labels else None)


@dataclass(frozen=True)
class Drawn:
    """All of a batch of B that needs files or the CPU: patches, or what they are made of, and points (B, N, d) and state (B, N)
    of its landmarks, as in `Batch`."""

    samples: tuple[_Patch, ...] | tuple[_Source, ...]
    points: np.ndarray
    state: np.ndarray
    cases: tuple[str, ...]


@dataclass(frozen=True)
class PatchSampler:
    """Draws batches from prepared cases as the plan says.

    Patches are made on the CPU, or with `device` there: voxels are sent there as they are stored, and turned, scaled and
    changed there. Where a stage before has found something, that wears off on the CPU, and finished patches are sent.

    Of `n` processes that share a batch, the one with the number `i`, for which `share` is (i, n), gets every n-th sample.

    The last samples of a batch, a share of `foreground_fraction`, show a structure or a landmark, one as often as the other where
    there are both. Where the plan's sampling is 'cases', they come from any case, and from one of the structures in it; where it
    is 'structures', a structure is drawn first, all alike, and then one of the cases that show it. The other samples come from
    anywhere in any case.

    Structures go by their class indices; landmarks follow, the first one having the number of classes.
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

    def draw(self, step: int) -> Drawn:
        """What threads can do ahead for the batch of a step: no memory of a GPU is taken."""
        rng = np.random.default_rng([self.seed, step])
        size = self.configuration.patch.batch_size
        forced = size - round(size * (1 - self.configuration.patch.foreground_fraction))
        chosen = [self.cases[i] for i in rng.integers(len(self.cases), size=size)]
        targets: list[int | None] = [None] * size
        for i in range(size - forced, size):
            if self.configuration.patch.sampling == "structures" and any(self._showing):
                showing = _either(rng, self._showing)
                targets[i], having = showing[rng.integers(len(showing))]
                chosen[i] = having[rng.integers(len(having))]
            else:
                kinds = _either(rng, self._shown_by(chosen[i]))
                targets[i] = int(rng.choice(kinds)) if kinds else None
        own = range(size)[self.share[0] :: self.share[1]]
        # a stream of its own for each sample, so that none needs to be made for the sake of the next
        drawn = [self._draw(np.random.default_rng([self.seed, step, 1 + i]), chosen[i], targets[i]) for i in own]
        samples, points, state = zip(*drawn)
        return Drawn(samples, np.stack(points).astype(np.float32), np.stack(state), tuple(chosen[i].name for i in own))

    def finish(self, drawn: Drawn) -> Batch:
        """The batch; one sample after another is made where that happens on a GPU."""
        device = self._patch_device
        patches = [s for s in drawn.samples if isinstance(s, _Patch)]
        if sources := [s for s in drawn.samples if isinstance(s, _Source)]:  # then all are
            where = sampled_at([s.spatial for s in sources], [s.box for s in sources], device)
            patches = [s.patch(at, self._mirrored_there) for s, at in zip(sources, where)]
        image = torch.stack([p.image.to(device, non_blocking=True) for p in patches])
        labels = [p.label.to(device, non_blocking=True) for p in patches if p.label is not None]
        label = torch.stack(labels).long() if labels else torch.empty((len(patches), 0), dtype=torch.int64, device=device)
        points, state = (to_send(x, device).to(device, non_blocking=True) for x in (drawn.points, drawn.state))
        axis = self.configuration.space.slice_axis
        if axis is not None:
            image, label = image.squeeze(2 + axis), label.squeeze(1 + axis) if labels else label
            points = points[..., [a for a in range(3) if a != axis]]
        return Batch(image, label, points, state, drawn.cases)

    @property
    def _patch_device(self) -> torch.device:
        return self.device or torch.device("cpu")

    @cached_property
    def _showing(self) -> tuple[_Showing, _Showing]:
        """Each structure that occurs, with the cases that show it; and the same of the landmarks."""
        n, n_landmarks = self.labels.n_classes, len(self.landmarks)
        shown = [(case, {i for kind in self._shown_by(case) for i in kind}) for case in self.cases]
        pairs = [(i, tuple(case for case, numbers in shown if i in numbers)) for i in range(n + n_landmarks)]
        return tuple((i, cases) for i, cases in pairs[1:n] if cases), tuple((i, cases) for i, cases in pairs[n:] if cases)

    def _shown_by(self, case: StoredCase) -> tuple[list[int], list[int]]:
        """Structures and landmarks that a case shows."""
        structures = [i for i in case.classes_present if i > 0]
        return structures, [self.labels.n_classes + i for i in case.landmarks_present]

    def _draw(
        self, rng: np.random.Generator, case: StoredCase, target: int | None
    ) -> tuple[_Patch | _Source, np.ndarray, np.ndarray]:
        """A sample, and the places and states of its landmarks."""
        training, window, labels = self.configuration.training, self.configuration.window, self.labels
        augment = training.augmentation != "none"
        with reading(case, "train"):
            if target is None:
                voxels = None
            elif target < labels.n_classes:
                voxels = case.foreground(target)
            else:
                voxels = case.points[[target - labels.n_classes]]
                voxels = voxels + rng.uniform(-OFF_CENTRE, OFF_CENTRE, 3) * [0 if n == 1 else n for n in window]
        centre = _draw_centre(rng, case.shape, window, voxels)
        spatial = draw_spatial(rng, window, centre, case.placement.target.spacing, training.mirror_axes, augment)
        box = source_box(spatial)
        with reading(case, "train"):
            image, label = case.read(box)
        if label is None and not len(self.landmarks):
            raise DataError("a case without label map cannot be trained on", case=case.name, fix="autoseg preprocess")
        if label is None and labels.names:
            label = np.full(box.shape, labels.ignore_index, dtype=labels.index_dtype)
        with reading(case, "train"):
            previous = case.previous_prediction(box)
        with _augmenting(case):
            points, state = apply_to_points(spatial, case.points, self._known_here(case, spatial.centre), self.landmarks)
            steps = draw_intensity(rng, len(image)) if augment else ()
            if self.device is not None and previous is None:
                sent, sent_label = to_send(image, self.device), None if label is None else to_send(label, self.device)
                return _Source(case, spatial, box, sent, sent_label, steps), points, state
            maps = [m for m in (label, previous) if m is not None]
            image, maps = apply_spatial(spatial, box, image, maps, self._mirrored)
            image = apply_intensity(image, steps) if augment else image
            if previous is not None:
                worn = apply_previous(
                    maps[-1], draw_previous(rng, len(mirrored_previous_classes(labels, self.landmarks))) if augment else ()
                )
                image = np.concatenate([image, worn[None]], dtype=np.float32, casting="unsafe")
            label_to_send = None if label is None else to_send(maps[0], self._patch_device)
            return _Patch(to_send(image, self._patch_device), label_to_send), points, state

    def _known_here(self, case: StoredCase, centre: np.ndarray) -> np.ndarray:
        """The states of a case's landmarks in a patch: absent are those that another slice shows. A single slice shows all."""
        axis = self.configuration.space.slice_axis
        if axis is None:
            return case.state
        shown_by = np.rint(case.points[:, axis]).clip(0, case.shape[axis] - 1)
        elsewhere = (case.state == State.PRESENT) & (shown_by != centre[axis])
        return np.where(elsewhere, State.ABSENT, case.state)

    @cached_property
    def _mirrored_there(self) -> Tensor:
        return torch.from_numpy(self._mirrored.astype(np.int64)).to(self.device)

    @cached_property
    def _mirrored(self) -> np.ndarray:
        """For each number of a label map, or of what a stage before found, what takes its place when left and right swap."""
        labels, swapped = self.labels, mirrored_previous_classes(self.labels, self.landmarks)
        if not labels.names:
            return np.array(swapped, dtype=np.min_scalar_type(len(self.landmarks)))
        mirrored = np.arange(labels.ignore_index + 1, dtype=labels.index_dtype)
        mirrored[: labels.n_classes] = swapped
        return mirrored


@contextlib.contextmanager
def reading(case: StoredCase, stage: str) -> Iterator[None]:
    """Whatever goes wrong inside, while a prepared case is read, is wrong with its files, unless the memory is used up.

    Raises:
        DataError: names the case and the `stage` that needs it.
    """
    try:
        yield
    except DataError as error:
        error.problem, error.case = f"{stage}: {error.problem}", case.name
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        raise DataError(
            f"{stage}: the prepared case cannot be read",
            case=case.name,
            file=case.folder,
            found=f"{type(error).__name__}: {error}",
            fix="delete its files there, then autoseg preprocess",
        ) from error


@contextlib.contextmanager
def _augmenting(case: StoredCase) -> Iterator[None]:
    """Whatever goes wrong there is a bug, unless the memory is used up; it is found more easily with the case's name."""
    try:
        yield
    except Exception as error:
        if lacks_memory(error):
            raise
        raise RuntimeError(f"augmenting a patch: case {case.name}: {type(error).__name__}: {error}") from error


def _either(rng: np.random.Generator, kinds: tuple[T, T]) -> T:
    """Structures or landmarks, each as often as the other; where one of them is empty, the other one."""
    structures, landmarks = kinds
    if structures and landmarks:
        return kinds[rng.integers(2)]
    return structures or landmarks


def _draw_centre(rng: np.random.Generator, shape: Triple, window: Triple, voxels: np.ndarray | None) -> np.ndarray:
    """Centre of a patch in voxels of a case of `shape`: on a random one of the (N, 3) `voxels`, or for None anywhere.

    Moved so that the patch lies inside the case, or the case inside the patch. On whole slices where the patch is one.
    """
    low, high = [], []
    for size, edge in zip(shape, window):
        inside = ((edge - 1) / 2, size - 1 - (edge - 1) / 2)
        low.append(min(inside) if edge > 1 else -0.5)
        high.append(max(inside) if edge > 1 else size - 0.5)
    if voxels is None:
        centre = rng.uniform(low, high)
    else:
        centre = np.clip(voxels[rng.integers(len(voxels))].astype(np.float64), low, high)
    on_slice = np.rint(centre).clip(0, np.array(shape) - 1)  # each slice is as likely as any other
    return np.where(np.array(window) == 1, on_slice, centre)
