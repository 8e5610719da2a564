"""A trained model: networks of one or more folds, ready to turn a prepared case into logits."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoseg.checkpoint import load_weights
from autoseg.device import Device, out_of_memory
from autoseg.errors import PlanError, UsageError
from autoseg.nets import UNet, build_network
from autoseg.placement import Placement
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.prepare import restore_labels, restore_probabilities
from autoseg.runs import RunRecord, load_run
from autoseg.windows import fitted_window, predict_volume, window_starts

NEVER = -1e4  # a logit whose probability is zero in every precision, and that still averages and interpolates
_one_at_a_time = threading.Lock()  # case threads share one network; torch uses every core for each forward anyway


@dataclass(frozen=True, eq=False)
class Model:
    """Networks that are averaged, and the plan they follow."""

    networks: tuple[UNet, ...]
    plan: Plan
    configuration: Configuration
    device: Device

    def segment(self, image: np.ndarray, placement: Placement, mirror: bool) -> np.ndarray:
        """(Z, Y, X) class indices on the source grid of a prepared case. See `logits`."""
        return self.segment_with_probabilities(image, placement, mirror, wanted=False)[0]

    def segment_with_probabilities(
        self, image: np.ndarray, placement: Placement, mirror: bool, wanted: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Class indices, and (K, Z, Y, X) probabilities if `wanted`, both on the source grid.

        The logits of one case live at a time, whatever the number of threads: they are by far the largest arrays.
        """
        with _one_at_a_time, out_of_memory("--device cpu, or a machine with more memory"):
            logits = self.logits(image, mirror)
            return restore_labels(logits, placement), restore_probabilities(logits, placement) if wanted else None

    def logits(self, image: np.ndarray, mirror: bool) -> np.ndarray:
        """Sliding window over one prepared case. Not to be called from several threads at once.

        Args:
            image: (C, Z, Y, X) as prepared; any float type.
            mirror: average over the plan's mirror axes.

        Returns:
            (K, Z, Y, X) float32, the mean over networks.
        """
        labels = self.plan.data.labels
        volume = torch.from_numpy(image.astype(np.float32))
        c = self.configuration
        return predict_volume(
            volume,
            self._forward,
            fitted_window(volume.shape[1:], c.window, c.divisors),
            labels.n_classes,
            c.inference.overlap,
            c.patch.batch_size,
            c.inference.mirror_axes if mirror else (),
            labels.mirrored,
            self.device.place,
        ).numpy()

    def n_windows(self, shape: Sequence[int]) -> int:
        """Windows that one pass over a prepared case of `shape` takes, without mirroring."""
        c = self.configuration
        window = fitted_window(shape, c.window, c.divisors)
        return math.prod(len(window_starts(n, w, c.inference.overlap)) for n, w in zip(shape, window))

    def _forward(self, batch: Tensor) -> Tensor:
        flat = self.configuration.ndim == 2
        seen = batch.squeeze(2) if flat else batch
        with torch.inference_mode(), self.device.autocast():
            total = self.networks[0](seen)[0].float()
            for network in self.networks[1:]:
                total = total + network(seen)[0].float()
        mean = total / len(self.networks)
        names = self.plan.data.labels.names
        mean[:, [names.index(name) + 1 for name in self.plan.data.unseen]] = NEVER
        return mean.unsqueeze(2) if flat else mean


def fresh_network(plan: Plan, configuration: Configuration, device: Device) -> UNet:
    """The plan's network with new weights, on the device."""
    return build_network(configuration.network, len(plan.data.channels), plan.data.labels.n_classes).to(device.place)


def load_model(runs: Sequence[Path], device: Device) -> tuple[Model, tuple[RunRecord, ...]]:
    """Loads the averaged weights of finished folds of one plan.

    Raises:
        UsageError: a fold has not finished.
        DataError: damaged weights.
        PlanError: weights of another network, or folds of different plans.
    """
    records = tuple(load_run(run) for run in runs)
    for run, record in zip(runs, records):
        if not record.finished:
            raise UsageError("the training of this fold has not finished", file=run, fix="run the same train command again")
    plan = load_plan(runs[0] / "plan.json")
    _, configuration = plan.configuration(records[0].configuration)
    for run, record in zip(runs[1:], records[1:]):
        other = load_plan(run / "plan.json")
        if (
            other.data != plan.data
            or replace(other.configuration(record.configuration)[1], why=configuration.why) != configuration
        ):
            raise PlanError("the folds of this model follow different plans", file=run, fix="give -m the folder of one fold")
    networks = []
    for run in runs:
        network = fresh_network(plan, configuration, device)
        load_weights(run / "last.safetensors", network)
        networks.append(network.eval())
    return Model(tuple(networks), plan, configuration, device), records
