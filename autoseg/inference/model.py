"""A trained model: networks of one or more folds, ready to turn a case into label maps and landmarks."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import PlanError, UsageError
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.landmarks import Landmarks, State
from autoseg.inference.shape_prior import SURE_CONFIDENCE, ShapePrior, load_shape_prior, millimetres
from autoseg.inference.sliding_window import fitted_window, mirrored_mean, predict_volume, window_starts
from autoseg.nets import SpatialConfiguration, UNet
from autoseg.nets.build import fresh_network
from autoseg.nets.device import Device, out_of_memory
from autoseg.nets.heatmaps import PeakCandidates, Peaks, at_size
from autoseg.nets.landmark_maps import read_candidates, read_maps
from autoseg.nets.weights import load_weights
from autoseg.plan import Configuration, Plan, load_plan
from autoseg.preprocessing.case import preprocess_case, preprocess_labels, restore_labels, restore_probabilities
from autoseg.preprocessing.landmark_spots import mirrored_previous_classes, paint_landmarks
from autoseg.preprocessing.placement import Placement
from autoseg.runs.record import RunRecord, common_thresholds, load_run, model_folds

NEVER = -1e4  # a logit whose probability is zero in every precision, and that still averages and interpolates
MAPS_AT_ONCE = 2**31  # bytes: of landmarks that take more, some are predicted first and the others in further passes
_one_at_a_time = threading.Lock()  # case threads share one network; torch uses every core for each forward anyway


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about an image, as far as it has learnt it.

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
    """What the networks say about a prepared case.

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
        previous: the stage before, if there is one.
        thresholds: for each landmark the probability of presence from which it counts as present; empty means that all do.
        arrangement: of the landmarks in training cases; None leaves each where its map peaks.
    """

    networks: tuple[UNet, ...]
    plan: Plan
    configuration: Configuration
    device: Device
    previous_stage: Model | None = None
    thresholds: tuple[float, ...] = ()
    shape_prior: ShapePrior | None = None

    def predict_image(self, image: Image, mirror: bool, probabilities: bool = False) -> Prediction:
        """What there is to say about an image as it was read; `probabilities` of the classes only if wanted."""
        prepared = preprocess_case(image, None, self.plan.data, self.configuration.space)
        first = None
        if self.previous_stage is not None:
            coarse = self.previous_stage.predict_image(image, mirror)
            if coarse.labels is not None:
                label_map = LabelMap(coarse.labels, image.grid, self.plan.data.labels)
                first = preprocess_labels(label_map, prepared.placement, self.configuration.space)
            elif coarse.landmarks is not None:
                first = paint_landmarks(coarse.landmarks, prepared.placement, self.previous_stage.configuration)
        return self.predict_prepared(prepared.image, prepared.placement, mirror, first, probabilities)

    def predict_prepared(
        self,
        image: np.ndarray,
        placement: Placement,
        mirror: bool,
        previous: np.ndarray | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """The same of a prepared case.

        The logits of one case live at a time, whatever the number of threads: they are by far the largest arrays. For the
        arguments see `look`.
        """
        with _one_at_a_time, out_of_memory("--device cpu, or a machine with more memory"):
            raw = self.predict_logits(image, mirror, previous)
            peaks = raw.peaks
            found = (None, None) if peaks is None else (self._landmarks(peaks, placement), peaks.presence)
            if raw.logits is None:
                return Prediction(None, None, *found)
            shares = restore_probabilities(raw.logits, placement) if probabilities else None
            return Prediction(restore_labels(raw.logits, placement), shares, *found)

    def predict_logits(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None = None) -> NetworkOutput:
        """Sliding window over one prepared case. Not to be called from several threads at once.

        Args:
            image: (C, Z, Y, X) as prepared; any float type.
            mirror: average over the plan's mirror axes.
            previous: (Z, Y, X) on the same grid what the stage before found, where the plan has one: class indices, or
                spots of landmarks where there are no structures.

        Returns:
            Means over networks: of logits, and of maps before their peaks are read.
        """
        shape, n_classes = image.shape[1:], self.plan.data.n_classes
        groups = list(self._groups(shape))
        if not groups:
            return NetworkOutput(self.logits(image, mirror, previous), None)
        volume = self._volume(image, mirror, previous, n_classes > 0, groups[0])
        logits = volume[:n_classes].numpy() if n_classes else None
        if logits is not None and len(groups) > 1:
            logits = logits.copy()  # no view: the maps behind it will be let go
        held = groups[0], volume[n_classes:]
        del volume

        def maps_of(group: tuple[int, ...]) -> Tensor:
            nonlocal held
            if held[0] != group:
                held = (), torch.empty(0)  # these are let go before others are made
                held = group, self._volume(image, mirror, previous, False, group)
            return held[1]

        spatial = None
        branch = next(iter(self._branches), None)
        if branch is not None:  # wants to have seen all landmarks before it says where one should be
            coarse = [branch.coarse_view(self._as_batch(maps_of(group))) for group in groups]
            spatial = self._spatial(torch.cat(coarse, dim=1)[:, _order(groups)], mirror)
            groups = groups[::-1]  # beginning with the one whose maps are still there
        found: list[Peaks] = []
        rivals: dict[int, PeakCandidates] = {}
        for group in groups:
            maps = self._as_batch(maps_of(group))
            if branch is not None and spatial is not None:
                for i, landmark in enumerate(group):  # one at a time: together they would take twice the memory
                    maps[:, [i]] = branch.combine(maps[:, [i]], spatial[:, [landmark]])
            found.append(self._peaks(maps, shape))
            rivals |= {group[i]: rival for i, rival in self._rivals(maps, found[-1].confidence).items()}
            del maps
        points, presence, confidence = (
            np.concatenate([getattr(p, part) for p in found])[_order(groups)] for part in ("points", "presence", "confidence")
        )
        return NetworkOutput(logits, self._resolve_ambiguous(Peaks(points, presence, confidence), rivals))

    def logits(self, image: np.ndarray, mirror: bool, previous: np.ndarray | None = None) -> np.ndarray:
        """(K, Z, Y, X) float32 of the classes alone; see `look`."""
        return self._volume(image, mirror, previous, True, ()).numpy()

    def _volume(
        self, image: np.ndarray, mirror: bool, previous: np.ndarray | None, classes: bool, landmarks: Sequence[int]
    ) -> Tensor:
        """Logits of the classes, if wanted, and behind them the maps of `landmarks`, among which are the partners of all."""
        data, c = self.plan.data, self.configuration
        n_classes = data.n_classes if classes else 0
        partners = [n_classes + list(landmarks).index(data.landmarks.mirrored[i]) for i in landmarks]
        assert (previous is not None) == (c.previous_stage is not None)
        seen = image if previous is None else np.concatenate([image, previous[None]], dtype=np.float32, casting="unsafe")
        volume = torch.from_numpy(seen.astype(np.float32, copy=False))
        return predict_volume(
            volume,
            partial(self._forward, classes=classes, landmarks=landmarks),
            fitted_window(volume.shape[1:], c.window, c.divisors),
            n_classes + len(landmarks),
            c.inference.overlap,
            c.patch.batch_size,
            c.inference.mirror_axes if mirror else (),
            [*data.labels.mirrored[:n_classes], *partners],
            self.device.place,
            self._swap_sides if previous is not None else None,
            self._strides,
        )

    @property
    def _strides(self) -> tuple[int, int, int]:
        """Voxels for one of the networks' output, along (z, y, x)."""
        return self.configuration.space.in_volume(self.configuration.network.strides[0], 1)

    def _groups(self, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Numbers of the landmarks, in groups whose maps fit into memory at once; partners stay together.

        Held are the maps of a case and, of the windows of a batch, those of one view and the sum over views.
        """
        c, mirrored = self.configuration, self.plan.data.landmarks.mirrored
        window = fitted_window(shape, c.window, c.divisors)
        windows = min(c.patch.batch_size, self.n_windows(shape)) * math.prod(window)
        most = MAPS_AT_ONCE * math.prod(self._strides) // (4 * (max(math.prod(shape), math.prod(window)) + 2 * windows))
        group: list[int] = []
        for i, partner in enumerate(mirrored):
            if partner < i:  # is there already
                continue
            if group and len(group) + 1 + (partner > i) > most:
                yield tuple(group)
                group = []
            group += [i] if partner == i else [i, partner]
        if group:
            yield tuple(group)

    @property
    def _branches(self) -> list[SpatialConfiguration]:
        """Of the networks; all or none of them have one."""
        heads = [network.point_head for network in self.networks]
        return [head.scn for head in heads if head is not None and head.scn is not None]

    def _as_batch(self, volume: Tensor) -> Tensor:
        """(1, N, Z, Y, X) maps as a batch of one, or (B, N, …) of a batch of slices for a 2D network, from (N, Z, Y, X)."""
        axis = self.configuration.space.slice_axis
        return volume.unsqueeze(0) if axis is None else volume.movedim(1 + axis, 0)

    def _spatial(self, coarse: Tensor, mirror: bool) -> Tensor:
        """Mean over networks and mirrored views of what the branches say to (B, N, …) coarse maps of all landmarks.

        They are shown what windows, views and networks say together.
        """
        space, partners = self.configuration.space, list(self.plan.data.landmarks.mirrored)
        thin = 2 + (space.slice_axis or 0)

        def ask(batch: Tensor) -> Tensor:
            seen = batch if space.slice_axis is None else batch.squeeze(thin)
            said = torch.stack([branch(seen) for branch in self._branches]).mean(0)
            return said if space.slice_axis is None else said.unsqueeze(thin)

        axes = self.configuration.inference.mirror_axes if mirror else ()
        said = []
        with torch.inference_mode():
            for part in coarse.split(self.configuration.patch.batch_size):  # of slices there may be hundreds
                seen = part.to(self.device.place)
                seen = seen if space.slice_axis is None else seen.unsqueeze(thin)
                said.append(mirrored_mean(seen, ask, axes, partners, lambda batch: batch[:, partners]).cpu())
        whole = torch.cat(said)
        return whole if space.slice_axis is None else whole.squeeze(thin)

    def _peaks(self, maps: Tensor, shape: Sequence[int]) -> Peaks:
        """Where maps peak, in voxels of a prepared case of `shape`.

        Slices of a 2D network know nothing of each other: of each landmark the one counts in which it is most probably present.

        Args:
            maps: as from `_as_batch`.
        """
        plan, axis = self.configuration.landmarks, self.configuration.space.slice_axis
        assert plan is not None
        if axis is None:
            peaks, size = read_maps(maps[0], plan.loss), maps.shape[2:]
        else:
            count, n = maps.shape[:2]
            flat = read_maps(maps.flatten(0, 1), plan.loss)
            best = flat.presence.reshape(count, n).argmax(0)
            row = best * n + np.arange(n)
            peaks = Peaks(np.insert(flat.points[row], axis, best, axis=1), flat.presence[row], flat.confidence[row])
            size = torch.Size(np.insert(maps.shape[2:], axis, count).tolist())
        return replace(peaks, points=self._in_case(peaks.points, size))

    def _in_case(self, points: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """(N, 3) voxels of maps of `size` as those of the prepared case."""
        return at_size(torch.from_numpy(points), size, [n * s for n, s in zip(size, self._strides)]).numpy()

    def _rivals(self, maps: Tensor, confidence: np.ndarray) -> dict[int, PeakCandidates]:
        """Other places of undecided landmarks, in voxels of a prepared case, by number in (B, N, …) `maps`.

        None where several slices each have their own.
        """
        plan, axis = self.configuration.landmarks, self.configuration.space.slice_axis
        assert plan is not None
        if self.shape_prior is None or plan.loss != "spatial_ce" or len(maps) > 1:
            return {}
        size = list(maps.shape[2:])
        if axis is not None:
            size.insert(axis, 1)
        found = {int(i): read_candidates(maps[0, i].reshape(size)) for i in np.flatnonzero(confidence < SURE_CONFIDENCE)}
        return {i: replace(rival, points=self._in_case(rival.points, size)) for i, rival in found.items()}

    def _resolve_ambiguous(self, peaks: Peaks, rivals: dict[int, PeakCandidates]) -> Peaks:
        """Each undecided landmark at the one of its places that goes best with the others."""
        if self.shape_prior is None or not rivals:
            return peaks
        mm = millimetres(self.configuration.space)
        scaled = {i: replace(rival, points=rival.points * mm) for i, rival in rivals.items()}
        points, confidence = peaks.points.copy(), peaks.confidence.copy()
        for i, best in self.shape_prior.choose(points * mm, confidence, scaled).items():
            points[i], confidence[i] = rivals[i].points[best], rivals[i].mass[best]
        return replace(peaks, points=points, confidence=confidence)

    def _landmarks(self, peaks: Peaks, placement: Placement) -> Landmarks:
        """Peaks of a prepared case as landmarks of the case."""
        present = peaks.presence >= np.array(self.thresholds or [0.0] * len(peaks.points))
        points = placement.to_world(peaks.points)
        points[~present] = np.nan
        state = np.where(present, State.PRESENT, State.ABSENT)
        return Landmarks(self.plan.data.landmarks.names, points, state, peaks.confidence)

    def n_windows(self, shape: Sequence[int]) -> int:
        """Windows that one pass over a prepared case of `shape` takes, without mirroring."""
        c = self.configuration
        window = fitted_window(shape, c.window, c.divisors)
        return math.prod(len(window_starts(n, w, c.inference.overlap)) for n, w in zip(shape, window))

    def _swap_sides(self, batch: Tensor) -> Tensor:
        """What the stage before found, in the last channel, after left and right have changed places."""
        data = self.plan.data
        swapped = torch.tensor(mirrored_previous_classes(data.labels, data.landmarks), device=batch.device, dtype=batch.dtype)
        return torch.cat([batch[:, :-1], swapped[batch[:, -1:].long()]], dim=1)

    def _forward(self, batch: Tensor, classes: bool, landmarks: Sequence[int]) -> Tensor:
        axis = self.configuration.space.slice_axis
        seen = batch if axis is None else batch.squeeze(2 + axis)
        with torch.inference_mode(), self.device.autocast():
            total = self._heads(self.networks[0], seen, classes, landmarks)
            for network in self.networks[1:]:
                total = total + self._heads(network, seen, classes, landmarks)
        mean = total / len(self.networks)
        names = self.plan.data.labels.names
        if classes:
            mean[:, [names.index(name) + 1 for name in self.plan.data.unseen]] = NEVER
        return mean.contiguous() if axis is None else mean.unsqueeze(2 + axis).contiguous()

    @staticmethod
    def _heads(network: UNet, batch: Tensor, classes: bool, landmarks: Sequence[int]) -> Tensor:
        """Logits of the classes, if wanted, and maps of landmarks, as channels of one tensor."""
        output = network(batch, landmarks)
        if output.maps is None:
            return output.logits[0].float()
        return torch.cat([output.logits[0].float(), output.maps], dim=1) if classes else output.maps


def _order(groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Where the first landmark is in groups that follow each other, then the second, and so on."""
    return np.argsort([i for group in groups for i in group])


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
    if configuration.previous_stage is not None:
        previous, _ = load_model(model_folds(runs[0].resolve().parents[1] / configuration.previous_stage), device)
        if previous.plan.data != plan.data:
            raise PlanError(f"{configuration.previous_stage} was trained on other data", file=runs[0], fix="train it again")
    networks = []
    for run in runs:
        network = fresh_network(plan, configuration, device)
        load_weights(run / "last.safetensors", network)
        networks.append(network.eval())
    thresholds = common_thresholds(records, plan.data.landmarks.names)
    arrangement = load_shape_prior(runs) if plan.data.landmarks.names else None
    return Model(tuple(networks), plan, configuration, device, previous, thresholds, arrangement), records
