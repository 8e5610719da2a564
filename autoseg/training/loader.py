"""Loads training batches on threads, ahead of the network."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from autoseg.plan.limits import BATCHES_AHEAD
from autoseg.training.sampling import Batch, DrawnBatch, PatchSampler


class Loader:
    """Prepares the next batches on threads while the network computes, as far as that needs the CPU. Use as a context manager.

    Threads, not processes: the system can kill no process unnoticed, so that the only fault is an exception. The next call of
    `next()` raises it with its traceback, even if the error belongs to a later batch.

    Args:
        threads: with 0, `next()` makes the batch itself.

    Attributes:
        waited: seconds that all calls of `next()` took: to wait, to make the batch without threads, to hand it to a GPU.
    """

    def __init__(self, sampler: PatchSampler, first_step: int, threads: int) -> None:
        self._sampler, self._step = sampler, first_step
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="autoseg-loader") if threads else None
        self._queue: deque[Future[Batch | DrawnBatch]] = deque()
        self.waited = 0.0

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def rewind(self, sampler: PatchSampler, step: int) -> None:
        """Continues with the batch of another step of another sampler; prepared batches are dropped."""
        for future in self._queue:
            future.cancel()
        self._queue.clear()
        self._sampler, self._step = sampler, step

    def next(self) -> Batch:
        """The batch of the next step."""
        started = time.monotonic()
        if self._pool is None:
            batch = self._sampler.batch(self._step)
            self._step += 1
        else:
            self.draw_ahead()
            for future in self._queue:
                if future.done():
                    future.result()
            prepared = self._queue.popleft().result()
            batch = self._sampler.finish(prepared) if isinstance(prepared, DrawnBatch) else prepared
        self.waited += time.monotonic() - started
        return batch

    def draw_ahead(self) -> None:
        """Starts the preparation of the next batches, if there are threads.

        Best called before waiting for a GPU: blosc2 holds Python's lock while it decompresses, and a GPU gets no work then.
        """
        if self._pool is None:
            return
        prepare = self._sampler.batch if self._sampler.device is None else self._sampler.draw
        while len(self._queue) < BATCHES_AHEAD:
            self._queue.append(self._pool.submit(prepare, self._step))
            self._step += 1
