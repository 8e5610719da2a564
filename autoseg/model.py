"""A trained model: networks of one or more folds, ready to turn a prepared case into logits."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoseg.checkpoint import load_weights
from autoseg.device import Device, out_of_memory
from autoseg.errors import PlanError, UsageError
from autoseg.image import Image, LabelMap
from autoseg.nets import UNet, build_network
from autoseg.placement import Placement
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.prepare import prepare, prepare_labels, restore_labels, restore_probabilities
from autoseg.runs import RunRecord, folds_of, load_run
from autoseg.windows import fitted_window, predict_volume, window_starts

NEVER = -1e4  # a logit whose probability is zero in every precision, and that still averages and interpolates
_one_at_a_time = threading.Lock()  # case threads share one network; torch uses every core for each forward anyway


@dataclass(frozen=True, eq=False)
class Model:
    """Networks that are averaged, and the plan they follow; `previous` is the stage before, if there is one."""

    networks: tuple[UNet, ...]
    plan: Plan
    configuration: Configuration
    device: Device
    previous: Model | None = None

    def predict_image(self, image: Image, mirror: bool, probabilities: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """(Z, Y, X) class indices of an image as it was read, and (K, Z, Y, X) `probabilities` if wanted, both on its grid."""
        prepared = prepare(image, None, self.plan.data, self.configuration.space)
        first = None
        if self.previous is not None:
            coarse = LabelMap(self.previous.predict_image(image, mirror)[0], image.grid, self.plan.data.labels)
            first = prepare_labels(coarse, prepared.placement, self.configuration.space)
        return self.segment(prepared.image, prepared.placement, mirror, first, probabilities)

    def segment(
        self,
        image: np.ndarray,
        placement: Placement,
        mirror: bool,
        previous: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(Z, Y, X) class indices of a prepared case, and (K, Z, Y, X) `probabilities` if wanted, both on the source grid.

        The logits of one case live at a time, whatever the number of threads: they are by far the largest arrays. For the
        arguments see `logits`.
        """
        with _one_at_a_time, out_of_memory("--device cpu, or a machine with more memory"):
            logits = self.logits(image, mirror, previous)
            return restore_labels(logits, placement), restore_probabilities(logits, placement) if probabilities else None

    def logits(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None = None) -> np.ndarray:
        """Sliding window over one prepared case. Not to be called from several threads at once.

        Args:
            image: (C, Z, Y, X) as prepared; any float type.
            mirror: average over the plan's mirror axes.
            previous: (Z, Y, X) class indices of the stage before, on the same grid, where the plan has one.

        Returns:
            (K, Z, Y, X) float32, the mean over networks.
        """
        labels = self.plan.data.labels
        c = self.configuration
        assert (previous is not None) == (c.previous is not None)
        seen = image if previous is None else np.concatenate([image, previous[None]], dtype=np.float32, casting="unsafe")
        volume = torch.from_numpy(seen.astype(np.float32, copy=False))
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
            self._swap_sides if previous is not None else None,
        ).numpy()

    def n_windows(self, shape: Sequence[int]) -> int:
        """Windows that one pass over a prepared case of `shape` takes, without mirroring."""
        c = self.configuration
        window = fitted_window(shape, c.window, c.divisors)
        return math.prod(len(window_starts(n, w, c.inference.overlap)) for n, w in zip(shape, window))

    def _swap_sides(self, batch: Tensor) -> Tensor:
        """The class indices in the last channel after left and right have changed places."""
        swapped = torch.tensor(self.plan.data.labels.mirrored, device=batch.device, dtype=batch.dtype)
        return torch.cat([batch[:, :-1], swapped[batch[:, -1:].long()]], dim=1)

    def _forward(self, batch: Tensor) -> Tensor:
        axis = self.configuration.space.slice_axis
        seen = batch if axis is None else batch.squeeze(2 + axis)
        with torch.inference_mode(), self.device.autocast():
            total = self.networks[0](seen)[0].float()
            for network in self.networks[1:]:
                total = total + network(seen)[0].float()
        mean = total / len(self.networks)
        names = self.plan.data.labels.names
        mean[:, [names.index(name) + 1 for name in self.plan.data.unseen]] = NEVER
        return mean.contiguous() if axis is None else mean.unsqueeze(2 + axis).contiguous()


def fresh_network(plan: Plan, configuration: Configuration, device: Device) -> UNet:
    """The plan's network with new weights, on the device."""
    cascaded = configuration.previous is not None
    network = build_network(configuration.network, len(plan.data.channels), plan.data.labels.n_classes, cascaded)
    return network.to(device.place)


def load_model(runs: Sequence[Path], device: Device) -> tuple[Model, tuple[RunRecord, ...]]:
    """Loads the averaged weights of finished folds of one plan, and those of the stage before: all of its finished folds.

    Raises:
        UsageError: a fold has not finished, or the stage before has no finished fold beside this configuration's folder.
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
        if (other.data, other.configuration(record.configuration)[1].decisions) != (plan.data, configuration.decisions):
            raise PlanError("the folds of this model follow different plans", file=run, fix="give -m the folder of one fold")
    previous = None
    if configuration.previous is not None:
        previous, _ = load_model(folds_of(runs[0].resolve().parents[1] / configuration.previous), device)
        if previous.plan.data != plan.data:
            raise PlanError(f"{configuration.previous} was trained on other data", file=runs[0], fix="train it again")
    networks = []
    for run in runs:
        network = fresh_network(plan, configuration, device)
        load_weights(run / "last.safetensors", network)
        networks.append(network.eval())
    return Model(tuple(networks), plan, configuration, device, previous), records
