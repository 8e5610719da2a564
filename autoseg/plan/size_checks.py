"""Checks of sizes that no computer has room or time for, before anything is computed with them.

Each limit lies a good deal above all published networks for medical images. What fits a certain machine is estimated elsewhere;
these are for a slip of the keyboard, which would end in an error of torch, or in no end at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from autoseg.plan.model import Configuration, NetworkPlan

Check = Callable[[bool, str, object, str], None]

MOST_STAGES = 16  # of an encoder: 65 536 voxels along an axis, halved in each
MOST_FEATURES = 8192
MOST_BLOCKS = 100  # of a stage
MOST_STRIDE = 64
MOST_KERNEL = 63  # edge of a convolution, voxels
MOST_WEIGHTS = 1e9  # 4 GB as float32, and as much again for gradients and each of the optimizer's means
MOST_PATCH = 2**31  # voxels of a batch of patches; torch counts them with 32 bits in places
MOST_STEPS = 1e9
MOST_SECONDS = 1e8  # three years
SPACING = (1e-9, 1e9)  # mm: no image has another one


def check_sizes(c: Configuration, check: Check) -> None:
    """Check the sizes of a configuration.

    Args:
        check: raises for a value that cannot be used: (usable, key, value, allowed).
    """
    low, high = SPACING
    check(all(low <= s <= high for s in c.space.spacing_mm), "space.spacing_mm", c.space.spacing_mm, f"{low:g}…{high:g} mm")
    _check_network(c.network, check)
    voxels = c.patch.batch_size * math.prod(c.patch.patch_size)
    found = f"batch {c.patch.batch_size} × {c.patch.patch_size}"
    check(voxels <= MOST_PATCH, "patch.patch_size", found, f"{MOST_PATCH} voxels in all")
    t = c.training
    steps = f"{t.epochs} × {t.steps_per_epoch}"
    check(t.epochs * t.steps_per_epoch <= MOST_STEPS, "training.epochs", steps, f"{MOST_STEPS:g} steps in all")
    check(t.time_s is None or t.time_s <= MOST_SECONDS, "training.time_s", t.time_s, f"up to {MOST_SECONDS:g} s")
    scn = c.landmarks.scn if c.landmarks else None
    if scn is not None:
        check(scn.features <= MOST_FEATURES, "landmarks.scn.features", scn.features, f"up to {MOST_FEATURES}")
        check(scn.layers <= MOST_BLOCKS, "landmarks.scn.layers", scn.layers, f"up to {MOST_BLOCKS}")
        check(scn.kernel <= MOST_KERNEL, "landmarks.scn.kernel", scn.kernel, f"up to {MOST_KERNEL}")
        weights = scn.layers * scn.features**2 * scn.kernel**c.ndim
        check(weights <= MOST_WEIGHTS, "landmarks.scn.features", scn.features, f"{MOST_WEIGHTS:g} weights, not {weights:.2g}")


def _check_network(network: NetworkPlan, check: Check) -> None:
    stages = len(network.features)
    check(stages <= MOST_STAGES, "network.features", f"{stages} stages", f"up to {MOST_STAGES} stages")
    for key, most in (("features", MOST_FEATURES), ("encoder_blocks", MOST_BLOCKS), ("decoder_blocks", MOST_BLOCKS)):
        check(max(getattr(network, key), default=0) <= most, f"network.{key}", getattr(network, key), f"up to {most} a stage")
    for key, most in (("strides", MOST_STRIDE), ("kernel_sizes", MOST_KERNEL)):
        rows = getattr(network, key)
        check(max((n for row in rows for n in row), default=0) <= most, f"network.{key}", rows, f"up to {most} along an axis")
    weights = _least_weights(network)
    check(weights <= MOST_WEIGHTS, "network.features", network.features, f"{MOST_WEIGHTS:g} weights, not {weights:.2g}")


def _least_weights(network: NetworkPlan) -> float:
    """Weights of the plain U-Net's convolutions, which blocks of other kinds have at least."""
    kernels = [math.prod(row) for row in network.kernel_sizes]
    encoder = zip(kernels, pairwise((1, *network.features)), network.encoder_blocks)
    decoder = zip(kernels, ((2 * f, f) for f in network.features), network.decoder_blocks)
    return sum(k * n_out * (n_in + (blocks - 1) * n_out) for k, (n_in, n_out), blocks in (*encoder, *decoder))
