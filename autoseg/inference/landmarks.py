"""Landmark positions from the maps that networks predict for a prepared case.

In order: landmarks are put into groups whose maps fit into memory together; where the networks have a spatial configuration
branch, it sees coarse views of all maps and adds to each what it says; then peaks are read, and where a map is undecided between
several of them, the shape prior chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoseg.imaging.landmarks import Landmarks, State
from autoseg.inference.shape_prior import SURE_CONFIDENCE, ShapePrior, millimetres
from autoseg.inference.sliding_window import Mirroring, count_windows, fitted_window, mirrored_mean
from autoseg.nets import SpatialConfiguration
from autoseg.nets.heatmaps import PeakCandidates, Peaks, rescale_points
from autoseg.nets.landmark_maps import read_candidates, read_maps
from autoseg.plan import Configuration, LandmarkPlan
from autoseg.preprocessing.placement import Placement

MAPS_AT_ONCE = 2**31  # bytes: of landmarks that take more, some are predicted first and the others in further passes

Group = tuple[int, ...]  # numbers of landmarks whose maps are predicted together


class GroupedMaps:
    """Landmark maps of a prepared case, those of one group at a time.

    Args:
        predict: (N, Z, Y, X) maps of a group.
        group: the group whose maps are there already.
        maps: those maps.
    """

    def __init__(self, predict: Callable[[Group], Tensor], group: Group, maps: Tensor) -> None:
        self._predict, self._group = predict, group
        self._maps: Tensor | None = maps

    def of(self, group: Group) -> Tensor:
        """(N, Z, Y, X) maps of a group; those of another group are freed before they are predicted."""
        if self._maps is None or group != self._group:
            self._maps = None
            self._group, self._maps = group, self._predict(group)
        return self._maps


@dataclass(frozen=True, eq=False)
class LandmarkReader:
    """Reads where landmarks are from their maps, a group at a time.

    Args:
        configuration: with landmarks.
        partners: for each landmark its partner under an x mirror, or itself.
        branches: the spatial configuration branches of the networks: all of these have one, or none.
        device: where the branches are.
        shape_prior: of training cases; None leaves each landmark at the highest peak of its map.
    """

    configuration: Configuration
    partners: tuple[int, ...]
    branches: tuple[SpatialConfiguration, ...]
    device: torch.device
    shape_prior: ShapePrior | None

    def groups(self, shape: Sequence[int]) -> list[Group]:
        """Groups of landmarks whose maps fit into memory at once; partners stay together.

        Held are the maps of a case and, of the windows of a batch, those of one view and the sum over views.

        Args:
            shape: (z, y, x) of the prepared case.
        """
        c = self.configuration
        window = fitted_window(shape, c.window, c.divisors)
        n_windows = min(c.patch.batch_size, count_windows(shape, window, c.inference.overlap))
        case_voxels, window_voxels = max(math.prod(shape), math.prod(window)), n_windows * math.prod(window)
        capacity = MAPS_AT_ONCE * math.prod(c.output_strides) // (4 * (case_voxels + 2 * window_voxels))
        groups: list[Group] = []
        group: Group = ()
        for i, partner in enumerate(self.partners):
            if partner < i:  # came with its partner
                continue
            joint = (i,) if partner == i else (i, partner)
            if group and len(group) + len(joint) > capacity:
                groups.append(group)
                group = ()
            group += joint
        return [*groups, group] if group else groups

    def read(self, maps: GroupedMaps, groups: Sequence[Group], shape: Sequence[int], *, mirror: bool) -> Peaks:
        """Peaks of all landmarks, in voxels (z, y, x) of the prepared case.

        Args:
            groups: as from `groups`; all landmarks together.
            shape: (z, y, x) of the prepared case.
            mirror: ask the branches in mirrored views, too.
        """
        spatial = self._spatial(maps, groups, mirror) if self.branches else None
        # with a branch the last group comes first, since its maps are still there
        readings = [self._read_group(maps, group, shape, spatial) for group in (groups if spatial is None else groups[::-1])]
        order = np.argsort([i for reading in readings for i in reading.group])
        points, presence, confidence = (
            np.concatenate([getattr(reading.peaks, part) for reading in readings])[order]
            for part in ("points", "presence", "confidence")
        )
        candidates = {i: candidate for reading in readings for i, candidate in reading.candidates.items()}
        return self._resolve_ambiguous(Peaks(points, presence, confidence), candidates)

    def _read_group(self, maps: GroupedMaps, group: Group, shape: Sequence[int], spatial: Tensor | None) -> _GroupReading:
        """Peaks of a group; `spatial` (B, N, *coarse) is what the branches say about all landmarks."""
        batch = self._as_batch(maps.of(group))
        if spatial is not None:
            for i, landmark in enumerate(group):  # one at a time: together they would take twice the memory
                batch[:, [i]] = self.branches[0].combine(batch[:, [i]], spatial[:, [landmark]])
        peaks = self._peaks(batch, shape)
        return _GroupReading(group, peaks, self._candidates(batch, group, peaks.confidence))

    def _spatial(self, maps: GroupedMaps, groups: Sequence[Group], mirror: bool) -> Tensor:
        """(B, N, *coarse) mean over branches and mirrored views of what they say about each landmark.

        They see the maps of all landmarks, each the mean over windows, views and networks.
        """
        views = [self.branches[0].coarse_view(self._as_batch(maps.of(group))) for group in groups]
        coarse = torch.cat(views, dim=1)[:, np.argsort([i for group in groups for i in group])]
        space, partners = self.configuration.space, list(self.partners)
        thin = 2 + (space.slice_axis or 0)

        def ask(batch: Tensor) -> Tensor:
            batch = batch if space.slice_axis is None else batch.squeeze(thin)
            mean = torch.stack([branch(batch) for branch in self.branches]).mean(0)
            return mean if space.slice_axis is None else mean.unsqueeze(thin)

        axes = self.configuration.inference.mirror_axes if mirror else ()
        mirroring = Mirroring(axes, partners, lambda batch: batch[:, partners])
        parts = []
        with torch.inference_mode():
            for part in coarse.split(self.configuration.patch.batch_size):  # of slices there may be hundreds
                batch = part.to(self.device)
                batch = batch if space.slice_axis is None else batch.unsqueeze(thin)
                parts.append(mirrored_mean(batch, ask, mirroring).cpu())
        whole = torch.cat(parts)
        return whole if space.slice_axis is None else whole.squeeze(thin)

    def _as_batch(self, maps: Tensor) -> Tensor:
        """(1, N, Z, Y, X) maps as a batch of one, or (B, N, …) of a batch of slices for a 2D network, from (N, Z, Y, X)."""
        axis = self.configuration.space.slice_axis
        return maps.unsqueeze(0) if axis is None else maps.movedim(1 + axis, 0)

    def _peaks(self, maps: Tensor, shape: Sequence[int]) -> Peaks:
        """Peaks of maps, in voxels of a prepared case of `shape`.

        Slices of a 2D network know nothing of each other: a landmark is in the slice where it is most probably present.

        Args:
            maps: as from `_as_batch`.
        """
        axis, loss = self.configuration.space.slice_axis, self._plan.loss
        if axis is None:
            peaks, size = read_maps(maps[0], loss), maps.shape[2:]
        else:
            n_slices, n = maps.shape[:2]
            flat = read_maps(maps.flatten(0, 1), loss)
            best = flat.presence.reshape(n_slices, n).argmax(0)
            row = best * n + np.arange(n)
            peaks = Peaks(np.insert(flat.points[row], axis, best, axis=1), flat.presence[row], flat.confidence[row])
            size = torch.Size(np.insert(maps.shape[2:], axis, n_slices).tolist())
        return replace(peaks, points=self._in_case(peaks.points, size))

    def _candidates(self, maps: Tensor, group: Group, confidence: np.ndarray) -> dict[int, PeakCandidates]:
        """All peaks of the undecided landmarks of a group, in voxels of the prepared case, by number of the landmark.

        None where each of several slices has its own.

        Args:
            maps: (B, N, …) of the group.
            confidence: (N,) of their highest peaks.
        """
        axis = self.configuration.space.slice_axis
        if self.shape_prior is None or self._plan.loss != "spatial_ce" or len(maps) > 1:
            return {}
        size = list(maps.shape[2:])
        if axis is not None:
            size.insert(axis, 1)
        candidates = {}
        for i in np.flatnonzero(confidence < SURE_CONFIDENCE):
            peaks = read_candidates(maps[0, i].reshape(size))
            candidates[group[i]] = replace(peaks, points=self._in_case(peaks.points, size))
        return candidates

    def _resolve_ambiguous(self, peaks: Peaks, candidates: Mapping[int, PeakCandidates]) -> Peaks:
        """Peaks with each undecided landmark at the one of its candidates that the shape prior chooses."""
        if self.shape_prior is None or not candidates:
            return peaks
        mm = millimetres(self.configuration.space)
        scaled = {i: replace(candidate, points=candidate.points * mm) for i, candidate in candidates.items()}
        points, confidence = peaks.points.copy(), peaks.confidence.copy()
        for i, best in self.shape_prior.choose(points * mm, confidence, scaled).items():
            points[i], confidence[i] = candidates[i].points[best], candidates[i].mass[best]
        return replace(peaks, points=points, confidence=confidence)

    def _in_case(self, points: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """(N, 3) voxels of the prepared case from those of maps of `size`."""
        case_size = [n * s for n, s in zip(size, self.configuration.output_strides)]
        return rescale_points(torch.from_numpy(points), size, case_size).numpy()

    @property
    def _plan(self) -> LandmarkPlan:
        assert self.configuration.landmarks is not None
        return self.configuration.landmarks


@dataclass(frozen=True, eq=False)
class _GroupReading:
    """Peaks of the landmarks of a group, and all candidates of those that are undecided, by number of the landmark."""

    group: Group
    peaks: Peaks
    candidates: dict[int, PeakCandidates]


def landmarks_from_peaks(peaks: Peaks, placement: Placement, *, names: tuple[str, ...], thresholds: Sequence[float]) -> Landmarks:
    """Landmarks of a case in world mm, from peaks in voxels of its prepared form.

    Args:
        thresholds: for each landmark the probability of presence from which it counts as present; empty: all do.
    """
    present = peaks.presence >= np.array(thresholds or [0.0] * len(peaks.points))
    points = placement.to_world(peaks.points)
    points[~present] = np.nan
    return Landmarks(names, points, np.where(present, State.PRESENT, State.ABSENT), peaks.confidence)
