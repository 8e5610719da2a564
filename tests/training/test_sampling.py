"""Training batches: a function of seed and step, patches in the right places, errors that are not swallowed."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.tiny import Tiny
from scipy import ndimage

from autoseg.errors import DataError
from autoseg.imaging.geometry import AxisMap, Box, Grid
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.plan import Configuration, PatchPlan
from autoseg.plan.limits import BATCHES_AHEAD
from autoseg.preprocessing.placement import Placement, Prepared
from autoseg.preprocessing.store import StoredCase, write_case
from autoseg.training import sampling
from autoseg.training.augment import Intensity
from autoseg.training.loader import Loader
from autoseg.training.sampling import Batch, PatchSampler

LABELS = LabelSet(("left", "right", "spot"), (1, 2, 3))


def store(folder: Path, name: str, label: np.ndarray | None, shape: tuple[int, int, int] = (10, 20, 20)) -> StoredCase:
    """A case whose single channel is 1 + 100 z + 10 y + x / 10, never 0."""
    z, y, x = np.indices(shape)
    image = (1 + 100 * z + 10 * y + x / 10)[None].astype(np.float16)
    grid = Grid.from_spacing(shape, (1, 1, 1))
    placement = Placement(grid, AxisMap((0, 1, 2), (False,) * 3), Box((0, 0, 0), shape), grid)
    write_case(folder, name, Prepared(image, label, placement), "key")
    return StoredCase.open(folder, name)


def store_points(
    folder: Path, name: str, points: list[tuple[float, float, float] | None], label: np.ndarray | None = None
) -> StoredCase:
    """The same with landmarks; None for one that is absent."""
    shape = (10, 20, 20)
    case = store(folder, name, label, shape)
    image, label = case.read()
    state = np.array([State.ABSENT if p is None else State.PRESENT for p in points])
    places = np.array([p or (np.nan,) * 3 for p in points]).reshape(-1, 3)
    write_case(folder, name, Prepared(image, label, case.placement, places, state), "key")
    return StoredCase.open(folder, name)


def spot(at: tuple[int, int, int], shape: tuple[int, int, int] = (10, 20, 20)) -> np.ndarray:
    label = np.zeros(shape, dtype=np.uint8)
    label[at] = 3
    return label


NO_LABELS = LabelSet((), ())
POINTS = LandmarkSet(("a", "b", "c"), (("a", "c"),))


def plain(configuration: Configuration, patch: tuple[int, ...], batch: int, fraction: float) -> Configuration:
    """Patches without augmentation."""
    training = replace(configuration.training, augmentation="none")
    return replace(configuration, patch=PatchPlan(patch, batch, fraction), training=training)


def batches(sampler: PatchSampler, threads: int, first: int, count: int) -> list[Batch]:
    with Loader(sampler, first, threads) as loader:
        return [loader.next() for _ in range(count)]


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and a.cases == b.cases


def test_batch_follows_from_seed_and_step(tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny.job(tmp_path).prepared
    cases = [StoredCase.open(folder, c.name) for c in tiny.dataset.cases]
    sampler = PatchSampler(cases, tiny.configuration, tiny.dataset.labels, seed=3)
    expected = [sampler.batch(step) for step in range(2, 9)]
    for threads in (0, 1, 3):
        assert all(equal(a, b) for a, b in zip(expected, batches(sampler, threads, 2, 7)))
    assert not equal(expected[0], expected[1])
    assert not equal(expected[0], replace(sampler, seed=4).batch(2))
    first = expected[0]
    assert first.image.shape == (2, 1, 8, 16, 16)
    assert first.label.shape == (2, 8, 16, 16)
    assert (first.image.dtype, first.label.dtype) == (torch.float32, torch.int64)
    assert set(first.cases) <= {c.name for c in cases}


def test_last_samples_of_a_batch_show_a_structure(tiny: Tiny, tmp_path: Path) -> None:
    case = store(tmp_path, "a", spot((9, 0, 13)))
    for batch, fraction, forced in ((4, 0.5, 2), (2, 0.33, 1), (3, 1.0, 3), (9, 1 / 3, 3)):
        sampler = PatchSampler([case], plain(tiny.configuration, (2, 4, 4), batch, fraction), LABELS, 0)
        for step in range(5):
            shown = [bool((label == 3).any()) for label in sampler.batch(step).label]
            assert all(shown[batch - forced :])
    none_forced = PatchSampler([case], plain(tiny.configuration, (2, 4, 4), 4, 0.0), LABELS, 0)
    shown = [(label == 3).any() for step in range(10) for label in none_forced.batch(step).label]
    assert np.mean(shown) < 0.2


def test_structures_are_equally_likely_however_small(tiny: Tiny, tmp_path: Path) -> None:
    label = spot((1, 1, 1))
    label[6:, 8:] = 1
    sampler = PatchSampler([store(tmp_path, "a", label)], plain(tiny.configuration, (1, 3, 3), 50, 1.0), LABELS, 0)
    centres = sampler.batch(0).label
    assert (centres == 3).flatten(1).any(1).float().mean().item() == pytest.approx(0.5, abs=0.2)


def test_rare_structures_are_drawn_as_often_as_the_others(tiny: Tiny, tmp_path: Path) -> None:
    """One case of ten has the spot; every case has the other structure. The label of a patch's middle tells what was drawn."""
    common = np.zeros((10, 20, 20), dtype=np.uint8)
    common[:, 8:, :] = 1
    rare = common.copy()
    rare[:, :2, :] = 3
    cases = [store(tmp_path, f"c{i}", rare if i == 4 else common) for i in range(10)]
    shares = {}
    for mode in ("cases", "structures"):
        chosen = plain(tiny.configuration, (1, 1, 1), 100, 0.5)
        chosen = replace(chosen, patch=replace(chosen.patch, sampling=mode))
        made = [PatchSampler(cases, chosen, LABELS, 0).batch(step) for step in range(4)]
        free = np.concatenate([b.label[:50].flatten() for b in made])
        forced = np.concatenate([b.label[50:].flatten() for b in made])
        assert set(forced) == {1, 3}
        assert np.mean(free == 3) < 0.05  # the other half comes from anywhere in either way
        shares[mode] = np.mean(forced == 3)
        names = [n for b in made for n in b.cases[50:]]
        assert all(names[i] == "c4" for i in np.flatnonzero(forced == 3))
        assert len(set(names)) == 10
        if mode == "structures":
            again = PatchSampler(cases, chosen, LABELS, 0).batch(3)
            assert equal(again, made[3])
    assert shares["structures"] == pytest.approx(0.5, abs=0.1)
    assert shares["cases"] == pytest.approx(0.05, abs=0.04)


def test_structure_sampling_without_structures(tiny: Tiny, tmp_path: Path) -> None:
    chosen = plain(tiny.configuration, (2, 4, 4), 4, 1.0)
    chosen = replace(chosen, patch=replace(chosen.patch, sampling="structures"))
    empty = store(tmp_path, "a", np.zeros((10, 20, 20), dtype=np.uint8))
    assert PatchSampler([empty], chosen, LABELS, 0).batch(0).label.max() == 0
    beside = [empty, store(tmp_path, "b", spot((1, 2, 3)))]
    assert set(PatchSampler(beside, chosen, LABELS, 0).batch(0).cases) == {"b"}


def test_a_case_without_structures_is_sampled_anywhere(tiny: Tiny, tmp_path: Path) -> None:
    empty = store(tmp_path, "a", np.zeros((10, 20, 20), dtype=np.uint8))
    batch = PatchSampler([empty], plain(tiny.configuration, (2, 4, 4), 8, 1.0), LABELS, 0).batch(0)
    assert len({float(image[0, 0, 0, 0]) for image in batch.image}) > 4
    assert batch.label.max() == 0


def test_patches_lie_inside_the_case_and_reach_its_borders(tiny: Tiny, tmp_path: Path) -> None:
    case = store(tmp_path, "a", spot((0, 0, 0)))
    sampler = PatchSampler([case], plain(tiny.configuration, (6, 13, 8), 40, 0.1), LABELS, 0)
    image = np.concatenate([sampler.batch(step).image for step in range(5)])[:, 0]
    assert image.min() >= 1  # 0 is outside
    first = image[:, 0, 0, 0] - 1
    assert {int(v // 100) for v in first} == set(range(5))
    assert {int(v % 100 // 10) for v in first} == set(range(8))


def test_a_case_smaller_than_the_patch_is_padded_on_all_sides(tiny: Tiny, tmp_path: Path) -> None:
    case = store(tmp_path, "a", spot((1, 2, 2), (2, 3, 4)), (2, 3, 4))
    sampler = PatchSampler([case], plain(tiny.configuration, (4, 8, 4), 30, 0.5), LABELS, 0)
    batch = sampler.batch(0)
    inside = batch.image[:, 0] > 0
    assert inside.flatten(1).sum(1).tolist() == [2 * 3 * 4] * 30
    assert (batch.label == 3).flatten(1).sum(1).tolist() == [1] * 30
    assert {int(i.any(-1).any(-1).nonzero()[0]) for i in inside} == {0, 1, 2}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("augmentation", ["none", "default"])
def test_two_dimensional_patches_are_slices(
    tiny: Tiny, tmp_path: Path, axis: int, augmentation: Literal["none", "default"]
) -> None:
    """Every slice has one class, so a patch that mixes slices would show two."""
    shape = (10, 12, 14)
    label = np.ascontiguousarray(np.broadcast_to(np.indices(shape)[axis] % 3 + 1, shape)).astype(np.uint8)
    flat = plain(tiny.configuration, (8, 6), 60, 0.0)
    space = replace(flat.space, spacing_mm=(1.0, 1.0), slice_axis=axis)
    flat = replace(flat, space=space, training=replace(flat.training, augmentation=augmentation, mirror_axes=()))
    batch = PatchSampler([store(tmp_path, "a", label, shape)], flat, LABELS, 0).batch(0)
    assert batch.image.shape == (60, 1, 8, 6)
    assert batch.label.shape == (60, 8, 6)
    shown = [set(patch.unique().tolist()) - {0} for patch in batch.label]
    assert {len(classes) for classes in shown} == {1}
    assert set.union(*shown) == {1, 2, 3}


def test_every_slice_is_as_likely(tiny: Tiny, tmp_path: Path) -> None:
    flat = plain(tiny.configuration, (4, 4), 1000, 0.0)
    flat = replace(flat, space=replace(flat.space, spacing_mm=(1.0, 1.0), slice_axis=0))
    image = PatchSampler([store(tmp_path, "a", np.zeros((4, 9, 9), np.uint8), (4, 9, 9))], flat, LABELS, 0).batch(0).image
    counts = np.bincount((image.amin((1, 2, 3)) // 100).int().numpy())
    assert len(counts) == 4
    assert counts.min() > 200


def test_left_and_right_swap_with_the_mirror(tiny: Tiny, tmp_path: Path) -> None:
    """Left lies at low x, right at high x; after augmentation that must still be so."""
    label = np.zeros((10, 20, 20), dtype=np.uint8)
    label[:, :, :10], label[:, :, 10:] = 1, 2
    training = replace(tiny.configuration.training, augmentation="default", mirror_axes=(2,))
    configuration = replace(tiny.configuration, patch=PatchPlan((4, 8, 20), 8, 0.0), training=training)
    sampler = PatchSampler([store(tmp_path, "a", label)], configuration, LABELS, 0)
    for step in range(3):
        for patch in sampler.batch(step).label:
            x = torch.arange(20.0)
            left_profile, right_profile = ((patch == c).float().sum((0, 1)) for c in (1, 2))
            assert (x * left_profile).sum() / left_profile.sum() < (x * right_profile).sum() / right_profile.sum()


def test_a_case_without_label_map_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    sampler = PatchSampler([store(tmp_path, "a", None)], tiny.configuration, LABELS, 0)
    for threads in (0, 2):
        with Loader(sampler, 0, threads) as loader, pytest.raises(DataError, match=r"case a: .*without label map"):
            loader.next()


def test_read_errors_name_case_and_action(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = PatchSampler([store(tmp_path, "a", spot((1, 1, 1)))], plain(tiny.configuration, (2, 4, 4), 2, 0.5), LABELS, 0)
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "apply_spatial", lambda *_: 1 / 0)
        with pytest.raises(RuntimeError, match="augmenting a patch: case a: ZeroDivisionError: division by zero"):
            sampler.batch(0)

    with monkeypatch.context() as patched:
        patched.setattr(sampling, "_draw_centre", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # a bug, and nothing to do with the files
            sampler.batch(0)
    files = [p for p in tmp_path.iterdir() if p.is_file()]
    for damaged in files:
        whole = damaged.read_bytes()
        for broken in (b"\0" * len(whole), whole[: len(whole) // 2], b""):
            if damaged.suffix == ".json":  # which was read when the case was opened
                continue
            damaged.write_bytes(broken)
            with pytest.raises(DataError, match=r"case a: train: the prepared case cannot be read; .*then autoseg preprocess"):
                sampler.batch(0)
        damaged.write_bytes(whole)
    sampler.batch(0)
    assert len(files) == 4


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("4 GB"),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes"),
    ],
    ids=["numpy", "GPU", "CPU"],
)
@pytest.mark.parametrize("where", ["read", "augment"])
def test_out_of_memory_passes_through(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    """It keeps its type, which the exit code goes by."""
    sampler = PatchSampler([store(tmp_path, "a", spot((1, 1, 1)))], plain(tiny.configuration, (2, 4, 4), 2, 0.5), LABELS, 0)

    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((StoredCase, "read") if where == "read" else (sampling, "apply_spatial")), exhausted)
    with pytest.raises(type(error)) as caught:
        sampler.batch(0)
    assert caught.value is error


def test_a_loader_can_be_rewound(tiny: Tiny, tmp_path: Path) -> None:
    sampler = PatchSampler([store(tmp_path, "a", spot((1, 1, 1)))], plain(tiny.configuration, (2, 4, 4), 2, 0.5), LABELS, 0)
    reseeded = replace(sampler, seed=1)
    for threads in (0, 2):
        with Loader(sampler, 5, threads) as loader:
            loader.next()
            loader.rewind(reseeded, 3)
            assert equal(loader.next(), reseeded.batch(3))
            assert equal(loader.next(), reseeded.batch(4))


class _Broken:
    """Stands in for a sampler whose third batch cannot be made, which shows once `breaks` is set."""

    device = None

    def __init__(self) -> None:
        self.made: list[int] = []
        self.breaks = threading.Event()

    def batch(self, step: int) -> Batch:
        self.made.append(step)
        if step == 2 and self.breaks.wait(10):
            raise ValueError("broken patch")
        return Batch(*[torch.zeros(1)] * 4, ("a",))


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_an_error_of_a_later_batch_is_raised_at_once(threads: int) -> None:
    broken = _Broken()
    with Loader(broken, 0, threads) as loader:  # type: ignore[arg-type]
        loader.next()
        broken.breaks.set()
        if threads == 0:
            loader.next()
        while threads and (len(broken.made) < 3 or not all(future.done() for future in loader._queue)):  # the last is the third
            time.sleep(0.001)
        with pytest.raises(ValueError, match="broken patch"):
            loader.next()
    assert max(broken.made) <= BATCHES_AHEAD


def test_batches_are_drawn_ahead_on_request() -> None:
    """As a step does before it waits for a GPU; asked twice, or for the next batch, nothing more is."""
    begun: list[int] = []

    class Counting(_Broken):
        def batch(self, step: int) -> Batch:
            begun.append(step)
            return Batch(*[torch.zeros(1)] * 4, ("a",))

    with Loader(Counting(), 0, threads=1) as loader:  # type: ignore[arg-type]
        loader.next()
        loader.draw_ahead()
        loader.draw_ahead()
        loader.next()
        loader._pool.submit(int).result()  # type: ignore[union-attr]  # the last in the line
        assert begun == list(range(1 + BATCHES_AHEAD))


def test_waiting_seconds_are_summed() -> None:
    class Slow(_Broken):
        def batch(self, step: int) -> Batch:
            time.sleep(0.02)
            return super().batch(0)

    for threads in (0, 1):
        with Loader(Slow(), 0, threads) as loader:  # type: ignore[arg-type]
            for _ in range(3):
                loader.next()
            assert 0.04 < loader.waited < 2


def test_points_match_the_patch(tiny: Tiny, tmp_path: Path) -> None:
    """The image tells where a voxel comes from: interpolated at a point of the patch it must say the point of the case."""
    points = [(4.0, 8.5, 7.25), (5.5, 12.0, 11.0), None]
    case = store_points(tmp_path, "a", points)
    for augmentation in ("none", "default"):
        configuration = plain(tiny.configuration, (8, 16, 16), 6, 0.5)
        training = replace(configuration.training, augmentation=augmentation, mirror_axes=(0, 1, 2))
        sampler = PatchSampler([case], replace(configuration, training=training), NO_LABELS, 0, landmarks=POINTS)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sampling, "draw_intensity", lambda *_: (Intensity(),))
            batch = sampler.batch(0)
        assert (batch.label.shape, batch.points.shape, batch.state.shape) == ((6, 0), (6, 3, 3), (6, 3))
        assert (batch.points.dtype, batch.state.dtype) == (torch.float32, torch.int64)
        mirrored = 0
        for image, patch_points, state in zip(batch.image[:, 0].numpy(), batch.points.numpy(), batch.state.tolist()):
            names = [2, 1, 0] if np.isnan(patch_points[0, 0]) else [0, 1, 2]  # where x is mirrored the absent one comes first
            mirrored += names[0] == 2
            assert state == [(2, 2, 1)[i] for i in names]
            for i, at in zip(names, patch_points):
                point = points[i]
                if point is None:
                    assert np.isnan(at).all()
                elif ((at > 1) & (at < np.array(image.shape) - 2)).all():
                    intensity = ndimage.map_coordinates(image, at[:, None], order=1)
                    assert intensity == pytest.approx(1 + 100 * point[0] + 10 * point[1] + point[2] / 10, abs=0.6)
        assert (mirrored > 0) == (augmentation == "default")


def test_forced_patches_show_a_landmark_off_the_centre(tiny: Tiny, tmp_path: Path) -> None:
    case = store_points(tmp_path, "a", [(2.5, 10.0, 10.0), None, (7.5, 10.0, 9.0)])
    sampler = PatchSampler([case], plain(tiny.configuration, (2, 4, 4), 40, 1.0), NO_LABELS, 0, landmarks=POINTS)
    batch = sampler.batch(0)
    inside = ((batch.points > -0.5 - 1e-6) & (batch.points < torch.tensor([1.5, 3.5, 3.5]) + 0.01)).all(-1)
    assert inside.any(1).all()
    assert 10 < int(inside[:, 0].sum()) < 30  # one as often as the other
    assert len(torch.unique(batch.points[inside], dim=0)) >= 4  # its place is not known beforehand
    free = replace(sampler, configuration=plain(tiny.configuration, (2, 4, 4), 40, 0.0)).batch(0)
    shown = ((free.points > -0.5) & (free.points < torch.tensor([1.5, 3.5, 3.5]))).all(-1).any(1)
    assert shown.float().mean() < 0.3


@pytest.mark.parametrize("mode", ["cases", "structures"])
def test_structures_and_landmarks_are_shown_as_often(tiny: Tiny, tmp_path: Path, mode: Literal["cases", "structures"]) -> None:
    """A spot in one corner, a landmark in the other; and a case that has a landmark only."""
    cases = [store_points(tmp_path, "both", [(8.0, 16.0, 16.0), None, None], spot((1, 2, 2)))]
    cases.append(store_points(tmp_path, "points", [(8.0, 16.0, 16.0), None, None]))
    configuration = plain(tiny.configuration, (2, 4, 4), 100, 1.0)
    configuration = replace(configuration, patch=replace(configuration.patch, sampling=mode))
    batch = PatchSampler(cases, configuration, LABELS, 0, landmarks=POINTS).batch(0)
    spots = (batch.label == 3).flatten(1).any(1)
    points = ((batch.points[:, 0] > -0.5) & (batch.points[:, 0] < torch.tensor([1.5, 3.5, 3.5]))).all(-1)
    assert (spots ^ points).all()
    assert float(spots.float().mean()) == pytest.approx(0.5 if mode == "structures" else 0.25, abs=0.15)
    for label, name in zip(batch.label, batch.cases):
        assert bool((label == 255).all()) == (name == "points")  # nothing is known of its label map


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_landmark_is_absent_in_other_slices(tiny: Tiny, tmp_path: Path, axis: int) -> None:
    flat = plain(tiny.configuration, (8, 6), 60, 0.5)
    flat = replace(flat, space=replace(flat.space, spacing_mm=(1.0, 1.0), slice_axis=axis))
    points = [(4.4, 9.0, 8.0), (6.0, 5.0, 12.6), (-3.0, -3.0, -3.0)]
    case = store_points(tmp_path, "a", points)
    batch = PatchSampler([case], flat, NO_LABELS, 0, landmarks=POINTS).batch(0)
    assert batch.points.shape == (60, 3, 2)
    present = batch.state == State.PRESENT
    assert present[30:].any(1).all()  # those that are drawn to show one
    assert (batch.state != State.UNLABELLED).all()
    assert not present[:30].any(1).all()
    # what two samples show of different slices they show at different places
    shown_by = [min(max(round(p[axis]), 0), case.shape[axis] - 1) for p in points]
    for is_present in present:
        assert len({shown_by[i] for i in is_present.nonzero().flatten().tolist()}) <= 1


def test_a_single_slice_shows_all(tiny: Tiny, tmp_path: Path) -> None:
    shape = (1, 20, 20)
    case = store(tmp_path, "a", None, shape)
    points, state = np.array([[0.0, 3, 4], [7.5, 5, 6], [-2.0, 8, 9]]), np.full(3, State.PRESENT)
    write_case(tmp_path, "a", Prepared(case.read()[0], None, case.placement, points, state), "key")
    flat = plain(tiny.configuration, (16, 16), 4, 0.5)
    flat = replace(flat, space=replace(flat.space, spacing_mm=(1.0, 1.0), slice_axis=0))
    batch = PatchSampler([StoredCase.open(tmp_path, "a")], flat, NO_LABELS, 0, landmarks=POINTS).batch(0)
    assert (batch.state == State.PRESENT).all()
    between = batch.points[:, 1] - batch.points[:, 0]
    assert between.tolist() == [[2, 2]] * 4
