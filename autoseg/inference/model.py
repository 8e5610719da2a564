"""A trained model: networks of one or more folds that turn an image into a label map and landmarks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import PlanError, UsageError
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.intensities import check_not_blank
from autoseg.imaging.landmarks import Landmarks
from autoseg.inference.landmarks import Group, GroupedMaps, LandmarkReader, landmarks_from_peaks
from autoseg.inference.memory_check import check_room
from autoseg.inference.shape_prior import ShapePrior, load_shape_prior
from autoseg.inference.sliding_window import Mirroring, count_windows, fitted_window, predict_volume
from autoseg.nets import UNet
from autoseg.nets.build import build_network
from autoseg.nets.device import Device, out_of_memory
from autoseg.nets.heatmaps import Peaks
from autoseg.nets.weights import load_weights
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.plan.plugin_names import check_plugins
from autoseg.preprocessing.case import preprocess_case, preprocess_labels
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes, paint_landmarks
from autoseg.preprocessing.placement import Placement
from autoseg.preprocessing.restore import restore_labels, restore_probabilities
from autoseg.runs.plugins import PLUGINS
from autoseg.runs.record import RunRecord, common_thresholds, load_run, model_folds, record_scores, weights_file
from autoseg.system.progress import log

NEVER = -1e4  # a logit whose probability is zero in every precision, and that still averages and interpolates
_one_at_a_time = threading.Lock()  # case threads share one network; torch uses every core for each forward anyway


@dataclass(frozen=True, eq=False)
class Prediction:
    """The label map and the landmarks of an image, as far as the model has learnt them.

    Args:
        labels: (Z, Y, X) class indices on the image's grid; None without structures.
        probabilities: (K, Z, Y, X) of the classes on the image's grid; None unless wanted.
        landmarks: world mm; None without landmarks.
        presence: (N,) probability that a landmark is there, wherever that is; None without landmarks.
    """

    labels: np.ndarray | None
    probabilities: np.ndarray | None
    landmarks: Landmarks | None
    presence: np.ndarray | None


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """Class logits and landmark peaks of a prepared case.

    Args:
        logits: (K, Z, Y, X) float32 of the classes; None without structures.
        peaks: of the landmarks' maps, in voxels (z, y, x) of the prepared case; None without landmarks.
    """

    logits: np.ndarray | None
    peaks: Peaks | None


@dataclass(frozen=True, eq=False)
class Model:
    """Networks that are averaged, and the plan they follow.

    Args:
        previous_stage: the model of a cascade's first stage, if there is one.
        thresholds: for each landmark the probability of presence from which it counts as present; empty means that all do.
        shape_prior: of the landmarks in training cases; None leaves each where its map peaks.
    """

    networks: tuple[UNet, ...]
    plan: Plan
    configuration: Configuration
    device: Device
    previous_stage: Model | None = None
    thresholds: tuple[float, ...] = ()
    shape_prior: ShapePrior | None = None

    def predict_image(self, image: Image, mirror: bool, *, probabilities: bool = False) -> Prediction:
        """Predicts an image as it was read.

        Args:
            mirror: average over the plan's mirror axes.
            probabilities: return those of the classes, too.

        Raises:
            DataError: a blank image, or one that the plan's normalisation cannot take.
            GeometryError: voxels so large that the case would be many times the image.
            ResourceError: not enough memory.
        """
        check_not_blank(image.data)
        prepared = preprocess_case(image, None, self.plan.data, self.configuration.space)
        previous = self._predict_previous_stage(image, mirror, prepared.placement)
        return self.predict_prepared(prepared.image, prepared.placement, mirror, previous=previous, probabilities=probabilities)

    def predict_prepared(
        self,
        image: np.ndarray,
        placement: Placement,
        mirror: bool,
        *,
        previous: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Predicts a prepared case, on the grid of the image that it was made from.

        The logits of one case live at a time, whatever the number of threads: they are by far the largest arrays.

        Args:
            placement: from the image's grid to that of the prepared case.
            probabilities: return those of the classes, too.
            image, mirror, previous: as in `predict_logits`.

        Raises:
            ResourceError: not enough memory.
        """
        with _one_at_a_time, out_of_memory(self.device.more_memory):
            if self.device.torch_device.type == "cpu":
                check_room(self.plan, self.configuration, placement)
            output = self.predict_logits(image, mirror, previous)
            landmarks, presence = None, None
            if output.peaks is not None:
                names = self.plan.data.landmarks.names
                landmarks = landmarks_from_peaks(output.peaks, placement, names=names, thresholds=self.thresholds)
                presence = output.peaks.presence
            if output.logits is None:
                return Prediction(None, None, landmarks, presence)
            class_probabilities = restore_probabilities(output.logits, placement) if probabilities else None
            return Prediction(restore_labels(output.logits, placement), class_probabilities, landmarks, presence)

    def predict_logits(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None = None) -> NetworkOutput:
        """Class logits and landmark peaks of a prepared case. Not to be called from several threads at once.

        Args:
            image: (C, Z, Y, X) as prepared; any float type.
            mirror: average over the plan's mirror axes.
            previous: (Z, Y, X) prediction of the previous stage on the same grid, where the plan has one: class indices, or
                spots of landmarks where there are no structures.

        Returns:
            Means over networks: of logits, and of maps before their peaks are read.
        """
        reader, shape = self.landmark_reader, image.shape[1:]
        groups = reader.groups(shape)
        if not groups:
            return NetworkOutput(self.logits(image, mirror, previous), None)
        logits, maps = self._logits_and_maps(image, mirror, previous, groups)
        return NetworkOutput(logits, reader.read(maps, groups, shape, mirror=mirror))

    def logits(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None = None) -> np.ndarray:
        """(K, Z, Y, X) float32 of the classes alone; arguments as in `predict_logits`."""
        return self.predict_outputs(image, mirror, previous, classes=True, landmarks=()).numpy()

    def predict_outputs(
        self,
        image: np.ndarray,
        mirror: bool,
        previous: np.ndarray | None,
        *,
        classes: bool,
        landmarks: Sequence[int],
    ) -> Tensor:
        """Class logits, if wanted, and behind them the maps of some landmarks, each the mean over networks and views.

        Args:
            landmarks: numbers of the landmarks, in the order that their maps are wanted in; the partner of each is one of them.
            image, mirror, previous: as in `predict_logits`.

        Returns:
            (K + N, Z, Y, X) float32 on the CPU, sizes divided by the strides of the networks' output.
        """
        data, c = self.plan.data, self.configuration
        n_classes = data.n_classes if classes else 0
        partners = [n_classes + list(landmarks).index(data.landmarks.mirror_partners[i]) for i in landmarks]
        assert (previous is not None) == (c.previous_stage is not None)
        if previous is not None:
            image = np.concatenate([image, previous[None]], dtype=np.float32, casting="unsafe")
        mirroring = Mirroring(
            axes=c.inference.mirror_axes if mirror else (),
            partners=[*data.labels.mirror_partners[:n_classes], *partners],
            swap_input=None if previous is None else self._swap_previous_sides,
        )
        return predict_volume(
            torch.from_numpy(image.astype(np.float32, copy=False)),
            partial(self._mean_outputs, classes=classes, landmarks=landmarks),
            window=fitted_window(image.shape[1:], c.window, c.divisors),
            n_outputs=n_classes + len(landmarks),
            overlap=c.inference.overlap,
            batch_size=c.patch.batch_size,
            mirroring=mirroring,
            device=self.device.torch_device,
            strides=c.output_strides,
        )

    def n_windows(self, shape: Sequence[int]) -> int:
        """Windows that one pass over a prepared case of `shape` takes, without mirroring."""
        c = self.configuration
        return count_windows(shape, fitted_window(shape, c.window, c.divisors), c.inference.overlap)

    @property
    def landmark_reader(self) -> LandmarkReader:
        """Reads landmarks from the maps that `predict_outputs` gives."""
        heads = [network.point_head for network in self.networks]
        branches = tuple(head.scn for head in heads if head is not None and head.scn is not None)
        partners, device = self.plan.data.landmarks.mirror_partners, self.device.torch_device
        return LandmarkReader(self.configuration, partners, branches, device, self.shape_prior)

    def _logits_and_maps(
        self, image: np.ndarray, mirror: bool, previous: np.ndarray | None, groups: Sequence[Group]
    ) -> tuple[np.ndarray | None, GroupedMaps]:
        """Class logits, if there are structures, and landmark maps, of which the first group's come from the same pass."""
        n_classes = self.plan.data.n_classes
        outputs = self.predict_outputs(image, mirror, previous, classes=n_classes > 0, landmarks=groups[0])
        predict_group = partial(self._maps, image, mirror, previous)
        maps = GroupedMaps(predict_group, groups[0], outputs[n_classes:])
        if not n_classes:
            return None, maps
        logits: np.ndarray = outputs[:n_classes].numpy()
        return logits.copy() if len(groups) > 1 else logits, maps  # a view would keep the maps of the first group in memory

    def _maps(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None, group: Group) -> Tensor:
        return self.predict_outputs(image, mirror, previous, classes=False, landmarks=group)

    def _predict_previous_stage(self, image: Image, mirror: bool, placement: Placement) -> np.ndarray | None:
        """(Z, Y, X) prediction of the previous stage on the grid of this one's prepared case; None without one."""
        if self.previous_stage is None:
            return None
        coarse = self.previous_stage.predict_image(image, mirror)
        if coarse.labels is not None:
            label_map = LabelMap(coarse.labels, image.grid, self.plan.data.labels)
            return preprocess_labels(label_map, placement, self.configuration.space)
        assert coarse.landmarks is not None
        return paint_landmarks(coarse.landmarks, placement, self.previous_stage.configuration)

    def _swap_previous_sides(self, batch: Tensor) -> Tensor:
        """`batch` with left and right exchanged in its last channel, the prediction of the previous stage."""
        data = self.plan.data
        swapped = torch.tensor(mirrored_previous_classes(data.labels, data.landmarks), device=batch.device, dtype=batch.dtype)
        return torch.cat([batch[:, :-1], swapped[batch[:, -1:].long()]], dim=1)

    def _mean_outputs(self, batch: Tensor, classes: bool, landmarks: Sequence[int]) -> Tensor:
        """Mean over networks of the outputs for a batch of windows; slices go through a 2D network."""
        axis = self.configuration.space.slice_axis
        batch = batch if axis is None else batch.squeeze(2 + axis)
        with torch.inference_mode(), self.device.autocast():
            total = _outputs(self.networks[0], batch, classes, landmarks)
            for network in self.networks[1:]:
                total = total + _outputs(network, batch, classes, landmarks)
        mean = total / len(self.networks)
        names, unseen = self.plan.data.labels.names, set(self.plan.data.unseen)
        if classes:
            mean[:, [i for i, name in enumerate(names, start=1) if name in unseen]] = NEVER
        return mean.contiguous() if axis is None else mean.unsqueeze(2 + axis).contiguous()


def _outputs(network: UNet, batch: Tensor, classes: bool, landmarks: Sequence[int]) -> Tensor:
    """Class logits, if wanted, and maps of landmarks, as channels of one tensor."""
    output = network(batch, landmarks)
    if output.maps is None:
        return output.logits[0].float()
    return torch.cat([output.logits[0].float(), output.maps], dim=1) if classes else output.maps


def load_model(runs: Sequence[Path], device: Device) -> tuple[Model, tuple[RunRecord, ...]]:
    """Loads the averaged weights of folds of one plan, and those of the previous stage: all of its finished folds.

    A fold whose training goes on, or was interrupted, predicts with the best weights so far, and a note says so.

    Raises:
        UsageError: a fold of no step, or the previous stage has no finished fold beside this configuration's folder.
        DataError: damaged weights.
        PlanError: weights of another network, or folds of different plans.
    """
    records = tuple(load_run(run) for run in runs)
    for run, record in zip(runs, records):
        if record.steps == 0:
            raise UsageError("no step was trained of this model", file=run, fix="autoseg train --restart with more --time")
        if not record.finished:
            score = record_scores(record).partition(": ")[2]
            log.warning("note: %s has not finished: predicting with its best weights so far (%s)", run, score)
    plan = load_plan(runs[0] / "plan.json")
    _, configuration = plan.configuration(records[0].configuration)
    check_plugins(configuration, runs[0], kinds=("block",), copies=runs[0] / PLUGINS, records=records[0].plugins)
    for run, record in zip(runs[1:], records[1:]):
        fold_plan = load_plan(run / "plan.json")
        _, fold_configuration = fold_plan.configuration(record.configuration)
        check_plugins(fold_configuration, run, kinds=("block",), copies=run / PLUGINS, records=record.plugins)
        if (fold_plan.data, fold_configuration.decisions) != (plan.data, configuration.decisions):
            raise PlanError("the folds of this model follow different plans", file=run, fix="give -m the folder of one fold")
    previous_stage = None
    if configuration.previous_stage is not None:
        folds = model_folds(runs[0].resolve().parents[1] / configuration.previous_stage)
        previous_stage, previous_records = load_model(folds, device)
        if not all(record.finished for record in previous_records):
            raise UsageError("the previous stage of this model has not finished", file=folds[0], fix="train it to its end")
        if previous_stage.plan.data != plan.data:
            raise PlanError(f"{configuration.previous_stage} was trained on other data", file=runs[0], fix="train it again")
    networks = []
    for run, record in zip(runs, records):
        with out_of_memory(device.more_memory):
            network = build_network(plan, configuration, device)
        load_weights(weights_file(run, record), network)
        networks.append(network.eval())
    model = Model(
        tuple(networks),
        plan,
        configuration,
        device,
        previous_stage=previous_stage,
        thresholds=common_thresholds(records, plan.data.landmarks.names),
        shape_prior=load_shape_prior(runs) if plan.data.landmarks.names else None,
    )
    return model, records
