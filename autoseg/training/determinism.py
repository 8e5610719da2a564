"""Deterministic training: the same numbers for the same seed, on the same machine, with as many threads of torch.

Batches are a function of seed and step, the checkpoint holds the rest, and on a CPU torch repeats itself. What remains are
kernels of a GPU that add up in whatever order their threads finish, and decisions that a clock takes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from autoseg.errors import UsageError


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Let torch use deterministic operations only, if `enabled`.

    Else cuDNN may try which of its kernels are fastest, as in nnU-Net, since all patches have one size.

    Raises:
        UsageError: an operation has no deterministic implementation.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used; value: its manual
        torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = enabled, not enabled
    try:
        yield
    except RuntimeError as error:
        if not enabled or "determinis" not in str(error).lower():
            raise
        raise UsageError(
            "this training cannot be repeated bit by bit here",
            found=str(error).splitlines()[0],
            fix="leave out --deterministic, or --device cpu",
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
