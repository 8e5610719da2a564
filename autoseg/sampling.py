"""Training batches: choose a case and a place, draw the transform, read only the voxels it needs.

A batch is a function of (seed, step): nothing has to be remembered to resume, and the number of threads changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from autoseg.augment import (
    apply_intensity,
    apply_previous,
    apply_spatial,
    draw_intensity,
    draw_previous,
    draw_spatial,
    source_box,
)
from autoseg.device import lacks_memory
from autoseg.errors import DataError
from autoseg.geometry import Triple
from autoseg.labels import LabelSet
from autoseg.plan import Configuration
from autoseg.store import StoredCase


@dataclass(frozen=True)
class Batch:
    """image (B, C, *patch) float32, label (B, *patch) int64, and the cases they come from.

    After an earlier stage the image has one channel more: the class indices that it predicted.
    """

    image: Tensor
    label: Tensor
    cases: tuple[str, ...]


@dataclass(frozen=True)
class PatchSampler:
    """Draws batches from prepared cases as the plan says; `pinned` ones can be copied to a GPU while it computes.

    Of `n` processes that share a batch, the one with the number `i`, for which `share` is (i, n), gets every n-th sample.

    The last samples of a batch, a share of `foreground_fraction`, show a structure. Where the plan's sampling is 'cases', they
    come from any case, and from one of the structures in it; where it is 'structures', a structure is drawn first, all alike,
    and then one of the cases that show it. The other samples come from anywhere in any case.
    """

    cases: Sequence[StoredCase]
    configuration: Configuration
    labels: LabelSet
    seed: int
    pinned: bool = False
    share: tuple[int, int] = (0, 1)

    def batch(self, step: int) -> Batch:
        """The batch of one step, or this process's share of it."""
        rng = np.random.default_rng([self.seed, step])
        size = self.configuration.patch.batch_size
        forced = size - round(size * (1 - self.configuration.patch.foreground_fraction))
        chosen = [self.cases[i] for i in rng.integers(len(self.cases), size=size)]
        targets: list[int | None] = [None] * size
        for i in range(size - forced, size):
            if self.configuration.patch.sampling == "structures" and self._showing:
                targets[i], showing = self._showing[rng.integers(len(self._showing))]
                chosen[i] = showing[rng.integers(len(showing))]
            else:
                targets[i] = _draw_structure(rng, chosen[i])
        own = range(size)[self.share[0] :: self.share[1]]
        # a stream of its own for each sample, so that none needs to be made for the sake of the next
        patches = [self._patch(np.random.default_rng([self.seed, step, 1 + i]), chosen[i], targets[i]) for i in own]
        image = torch.from_numpy(np.stack([p[0] for p in patches]))
        label = torch.from_numpy(np.stack([p[1] for p in patches]).astype(np.int64))
        axis = self.configuration.space.slice_axis
        if axis is not None:
            image, label = image.squeeze(2 + axis), label.squeeze(1 + axis)
        if self.pinned:
            image, label = image.pin_memory(), label.pin_memory()
        return Batch(image, label, tuple(chosen[i].name for i in own))

    @cached_property
    def _showing(self) -> tuple[tuple[int, tuple[StoredCase, ...]], ...]:
        """Each structure that occurs, with the cases that show it."""
        pairs = ((i, tuple(c for c in self.cases if i in c.classes_present)) for i in range(1, self.labels.n_classes))
        return tuple((i, cases) for i, cases in pairs if cases)

    def _patch(self, rng: np.random.Generator, case: StoredCase, target: int | None) -> tuple[np.ndarray, np.ndarray]:
        training, window = self.configuration.training, self.configuration.window
        augment = training.augmentation != "none"
        with reading(case, "train"):
            voxels = None if target is None else case.foreground(target)
        centre = _draw_centre(rng, case.shape, window, voxels)
        spatial = draw_spatial(rng, window, centre, case.placement.target.spacing, training.mirror_axes, augment)
        box = source_box(spatial)
        with reading(case, "train"):
            image, label = case.read(box)
        if label is None:
            raise DataError("a case without label map cannot be trained on", case=case.name, fix="autoseg preprocess")
        mirrored = np.arange(np.iinfo(label.dtype).max + 1, dtype=label.dtype)
        mirrored[: self.labels.n_classes] = self.labels.mirrored
        with reading(case, "train"):
            previous = case.previous(box)
        with _augmenting(case):
            image, labels = apply_spatial(spatial, box, image, [label] if previous is None else [label, previous], mirrored)
            if augment:
                image = apply_intensity(image, draw_intensity(rng, len(image)))
            if previous is not None:
                worn = apply_previous(labels[1], draw_previous(rng, self.labels.n_classes) if augment else ())
                image = np.concatenate([image, worn[None]], dtype=np.float32, casting="unsafe")
        return image, labels[0]


@contextlib.contextmanager
def reading(case: StoredCase, stage: str) -> Iterator[None]:
    """Whatever goes wrong inside, while a prepared case is read, is wrong with its files, unless the memory is used up.

    Raises:
        DataError: names the case and the `stage` that needs it.
    """
    try:
        yield
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


def _draw_structure(rng: np.random.Generator, case: StoredCase) -> int | None:
    """One of the structures of a case; None where it has none."""
    present = [c for c in case.classes_present if c > 0]
    return int(rng.choice(present)) if present else None


def _draw_centre(rng: np.random.Generator, shape: Triple, window: Triple, voxels: np.ndarray | None) -> np.ndarray:
    """Centre of a patch in voxels of a case of `shape`: on a random one of the (N, 3) `voxels`, or for None anywhere.

    Moved so that the patch lies inside the case, or the case inside the patch.
    """
    low, high = [], []
    for size, edge in zip(shape, window):
        inside = ((edge - 1) / 2, size - 1 - (edge - 1) / 2)
        low.append(min(inside) if edge > 1 else -0.5)
        high.append(max(inside) if edge > 1 else size - 0.5)
    if voxels is not None:
        return np.clip(voxels[rng.integers(len(voxels))].astype(np.float64), low, high)
    centre = rng.uniform(low, high)
    on_slice = np.rint(centre).clip(0, np.array(shape) - 1)  # each slice is as likely as any other
    return np.where(np.array(window) == 1, on_slice, centre)


class Loader:
    """Prepares the next batches on threads while the network works. Use as a context manager.

    Threads, not processes: two of either make about as many batches a second (benchmarks/results/loader.md). There is no
    process that the system could kill behind our back, so the one fault there can be is an exception; the next `next()` raises
    it with its traceback, although it be a later batch's. With 0 threads `next()` makes the batch itself.

    `waited` sums the seconds spent waiting.
    """

    def __init__(self, sampler: PatchSampler, first_step: int, threads: int, ahead: int = 4) -> None:
        self._sampler, self._step, self._ahead = sampler, first_step, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="autoseg-loader") if threads else None
        self._queue: deque[Future[Batch]] = deque()
        self.waited = 0.0

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def rewind(self, sampler: PatchSampler, step: int) -> None:
        """Goes on with the batch of another step, of another sampler; what was prepared is dropped."""
        for future in self._queue:
            future.cancel()
        self._queue.clear()
        self._sampler, self._step = sampler, step

    def next(self) -> Batch:
        started = time.monotonic()
        if self._pool is None:
            batch = self._sampler.batch(self._step)
            self._step += 1
        else:
            while len(self._queue) < self._ahead:
                self._queue.append(self._pool.submit(self._sampler.batch, self._step))
                self._step += 1
            for future in self._queue:
                if future.done():
                    future.result()
            batch = self._queue.popleft().result()
        self.waited += time.monotonic() - started
        return batch
