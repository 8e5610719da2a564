"""Prepares the next batches on threads while the network works."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from autoseg.plan.limits import BATCHES_AHEAD
from autoseg.training.sampling import Batch, Drawn, PatchSampler


class Loader:
    """Prepares the next batches on threads while the network works, as far as that takes the CPU. Use as a context manager.

    Threads, not processes: there is no process that the system could kill behind our back, so the one fault there can be is an
    exception; the next `next()` raises it with its traceback, although it be a later batch's. With 0 threads `next()` makes the
    batch itself.

    `waited` sums the seconds that `next()` took: to wait, to make the batch where there are no threads, to hand it to a GPU.
    """

    def __init__(self, sampler: PatchSampler, first_step: int, threads: int) -> None:
        self._sampler, self._step = sampler, first_step
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="autoseg-loader") if threads else None
        self._queue: deque[Future[Batch | Drawn]] = deque()
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
            self.draw_ahead()
            for future in self._queue:
                if future.done():
                    future.result()
            ready = self._queue.popleft().result()
            batch = self._sampler.finish(ready) if isinstance(ready, Drawn) else ready
        self.waited += time.monotonic() - started
        return batch

    def draw_ahead(self) -> None:
        """Begins with the batches that are to be ready, if threads are to make any. Best called where a GPU is about to be waited
        for: blosc2 holds Python's lock while it decompresses, and handing work to a GPU needs it."""
        if self._pool is None:
            return
        ahead = self._sampler.batch if self._sampler.device is None else self._sampler.draw
        while len(self._queue) < BATCHES_AHEAD:
            self._queue.append(self._pool.submit(ahead, self._step))
            self._step += 1
