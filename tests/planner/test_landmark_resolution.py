"""Plans of datasets with landmarks: alone, beside label maps, within every budget."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ResourceError
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint
from autoseg.fingerprint.dataset import Fingerprint, Intensity
from autoseg.fingerprint.landmarks import measure_landmarks
from autoseg.footprint import NetworkIO, multiply_accumulates, plan_io, plan_memory, training_memory
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, State
from autoseg.plan import Configuration, LandmarkPlan, Plan, ScnPlan, parse_plan
from autoseg.planner import landmark_head
from autoseg.planner.family import FAMILIES
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.scn_rule import MOST_WORK, NO_SCN
from autoseg.planner.training import UNUSED
from autoseg.system.records import to_json

GPU = Budget("cuda", 8)
CPU = Budget("cpu", 8, compute="bfloat16")
ONE = (1.0, 1.0, 1.0)
LIVER = LabelSet(("liver",), (1,))
NOTHING = LabelSet((), ())


def make_fingerprint(
    shape: tuple[int, ...],
    n_landmarks: int = 12,
    n_cases: int = 30,
    spread: float = 0.6,
    spacing: tuple[float, ...] = ONE,
    labels: LabelSet = NOTHING,
    pairs: bool = True,
    channels: int = 1,
) -> Fingerprint:
    """Cases alike, with landmarks in a row from corner to corner of a box that is that share of the image."""
    rng = np.random.default_rng(0)
    extent = np.array(shape) * spacing
    row = np.linspace(-spread / 2, spread / 2, n_landmarks)[:, None] * extent
    cases = []
    for i in range(n_cases):
        points = row + (rng.normal(0, 0.03, 3) + rng.normal(0, 0.003, row.shape)) * extent * (np.array(shape) > 1)
        cases.append(
            CaseFingerprint(
                name=f"case_{i:03d}",
                digest="",
                spacing=spacing,  # type: ignore[arg-type]
                shape=shape,  # type: ignore[arg-type]
                shape_after_crop=shape,  # type: ignore[arg-type]
                voxels=(1,) * len(labels.names),
                lateral_positions=(),
                intensities=(),
                tails=(),
                remark="",
                states=(int(State.PRESENT),) * n_landmarks,
                points=tuple(map(tuple, points.tolist())),
            )
        )
    names = tuple(f"l{i}" for i in range(n_landmarks))
    landmarks = LandmarkSet(names, (("l0", "l1"),) if pairs and n_landmarks > 1 else ())
    statistics = measure_landmarks(names, [c.landmarks for c in cases])
    intensities = (Intensity(50.0, 10.0, 49.0, 0.0, 100.0, 12.5, 90.0),) * channels
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset="made up",
        channels=("MR",) * channels,
        labels=labels,
        landmarks=landmarks,
        intensities=intensities,
        structures=(),
        landmark_statistics=statistics,
        median_relative_size=1.0,
        n_empty_cases=0,
        ceilings=(),
        cases=tuple(cases),
    )


def single(plan: Plan) -> Configuration:
    (chosen,) = plan.configurations.values()
    return chosen


def test_landmarks_alone_by_hand() -> None:
    plan = make_plan(make_fingerprint((80, 96, 88)), CPU)
    assert (plan.task, plan.default_configuration, list(plan.configurations)) == ("landmarks", "3d_fullres", ["3d_fullres"])
    assert plan.data.landmarks.names[:2] == ("l0", "l1")
    c = single(plan)
    assert (c.space.spacing_mm, c.patch.patch_size, c.patch.batch_size) == (ONE, (80, 96, 96), 2)
    assert c.network.strides == ((2, 2, 2),) * 4
    assert c.network.features == (16, 32, 64, 128)
    assert len(c.network.kernel_sizes) == len(c.network.encoder_blocks) == 4
    assert not c.network.deep_supervision
    assert "no stage is at full resolution" in c.why["network.strides"]
    assert "of its own" not in c.why["patch.patch_size"]
    assert c.why["patch.patch_size"].endswith("in 100 % of the cases: one stage is enough")
    assert c.landmarks is not None
    assert (c.landmarks.sigma_mm, c.landmarks.loss) == ((2.0, 2.0, 2.0), "spatial_ce")
    assert "a voxel of (2, 2, 2) mm" in c.why["landmarks.sigma_mm"]
    assert c.landmarks.scn is None
    assert "shows all landmarks in 100 % of the cases" in c.why["landmarks.scn"]
    assert c.training.mirror_axes == c.inference.mirror_axes == (2,)
    assert (c.training.batch_dice, c.postprocess, c.patch.sampling, c.patch.foreground_fraction) == (False, (), "cases", 0.5)
    assert c.why["space.label_order"] == c.why["training.loss"] == UNUSED
    assert parse_plan(to_json(plan), "plan.json") == plan


def fullres_beside_a_liver(budget: Budget, shape: tuple[int, ...] = (200, 300, 300), n_landmarks: int = 12) -> Configuration:
    """What a label map needs: full resolution, so that patches show some of the landmarks only."""
    return make_plan(make_fingerprint(shape, n_landmarks, labels=LIVER), budget).configurations["3d_fullres"]


def test_a_branch_where_label_maps_need_fine_voxels() -> None:
    c = fullres_beside_a_liver(CPU)
    assert c.landmarks is not None
    assert c.landmarks.scn == ScnPlan("convolutions", (4, 4, 4), 7, 3, 16, "gate")  # maps of 56 x 80 x 80
    assert "of the pairs; the others explain 9" in c.why["landmarks.scn"]
    plan = make_plan(make_fingerprint((200, 300, 300), labels=LIVER), CPU)
    lowres, cascade = plan.configurations["3d_lowres"], plan.configurations["3d_cascade"]
    assert cascade.landmarks is not None
    assert cascade.landmarks.scn is not None  # it is told of the liver, not of landmarks
    assert lowres.landmarks is not None
    assert lowres.landmarks.scn is None
    assert "shows all landmarks in 100 % of the cases" in lowres.why["landmarks.scn"]


def test_every_field_about_landmarks_has_a_reason() -> None:
    c = fullres_beside_a_liver(CPU)
    wanted = {f"landmarks.{f.name}" for f in fields(LandmarkPlan)} | {f"landmarks.scn.{f.name}" for f in fields(ScnPlan)}
    assert {key for key in c.why if key.startswith("landmarks.")} == wanted
    few = fullres_beside_a_liver(CPU, n_landmarks=2)
    assert few.landmarks is not None
    assert few.landmarks.scn is None
    assert "2 landmarks are fewer than 3" in few.why["landmarks.scn"]
    assert "landmarks.scn.kernel" not in few.why


def test_maps_are_at_full_resolution_with_two_stages_only() -> None:
    c = single(make_plan(make_fingerprint((8, 8, 8), n_landmarks=3), CPU))
    assert c.network.strides == ((1, 1, 1), (2, 2, 2))
    assert "no stage is at full" not in c.why["network.strides"]


def test_thick_slices_are_not_halved_first() -> None:
    c = single(make_plan(make_fingerprint((24, 128, 128), spacing=(4.0, 1.0, 1.0)), GPU))
    assert c.network.strides[0] == (1, 2, 2)
    assert c.landmarks is not None
    assert c.landmarks.sigma_mm == (4.0, 2.0, 2.0)


def test_2d_images() -> None:
    plan = make_plan(make_fingerprint((1, 1600, 1300), pairs=False), CPU)
    assert (list(plan.configurations), plan.task) == (["2d"], "landmarks")
    c = single(plan)
    assert c.space.slice_axis == 0
    assert c.landmarks is not None
    assert len(c.landmarks.sigma_mm) == 2
    assert c.landmarks.scn is None or len(c.landmarks.scn.factor) == 2
    times = c.space.spacing_mm[0]
    assert 1 < times < 2
    assert all(n * times >= m for n, m in zip(c.patch.patch_size, (1600, 1300)))
    assert f"the patch shows the whole case from {times:.4g} times that spacing on" in c.why["space.spacing_mm"]
    assert c.why["space.slice_axis"] == "the median case is a single slice along z"
    assert c.training.mirror_axes == ()


def test_the_grid_is_as_coarse_as_it_must_be() -> None:
    """A GPU shows all of it at once; a CPU does so on a coarser grid, then all landmarks, then what it can."""
    whole = single(make_plan(make_fingerprint((256, 200, 200)), replace(GPU, memory_gb=24)))
    assert whole.space.spacing_mm == ONE
    near = single(make_plan(make_fingerprint((190, 190, 190), spread=0.5), CPU))
    assert 1 < near.space.spacing_mm[0] <= 2
    assert "the patch shows the whole case from" in near.why["space.spacing_mm"]
    compact = single(make_plan(make_fingerprint((520, 520, 520), spread=0.3), CPU))
    assert 1 < compact.space.spacing_mm[0] < 2
    assert "the patch shows all landmarks from" in compact.why["space.spacing_mm"]
    assert compact.why["patch.patch_size"].endswith("one stage is enough")
    finest = replace(CPU, gmacs_per_s=CPU.speed * 1.02)  # a little faster, and the grid is no coarser
    assert single(make_plan(make_fingerprint((520, 520, 520), spread=0.3), finest)).space.spacing_mm <= compact.space.spacing_mm


def test_a_second_stage_refines_a_grid_that_is_too_coarse() -> None:
    plan = make_plan(make_fingerprint((900, 900, 900)), CPU)
    assert (list(plan.configurations), plan.default_configuration) == (["3d_lowres", "3d_cascade"], "3d_lowres")
    assert "3d_cascade refines" in plan.why["default_configuration"]
    coarse, fine = plan.configurations.values()
    assert coarse.space.spacing_mm[0] > 2
    assert coarse.why["patch.patch_size"].endswith("of the cases; 3d_cascade refines what is found on so coarse a grid")
    assert (fine.previous_stage, fine.space.spacing_mm) == ("3d_lowres", ONE)
    assert plan.input_channels("3d_cascade") == 1 + 12
    assert fine.landmarks is not None
    assert fine.landmarks.scn is None
    assert fine.why["landmarks.scn"].startswith(NO_SCN)
    assert "one more channel a landmark" in fine.why["previous_stage"]
    assert parse_plan(to_json(plan), "plan.json") == plan
    alone = make_plan(make_fingerprint((900, 900, 900), n_cases=1), CPU)
    assert alone.why["default_configuration"].endswith(
        "which tells them apart; a single case leaves nothing to validate on: -f all"
    )
    pictures = make_plan(make_fingerprint((1, 6000, 5000), pairs=False), CPU)
    assert (list(pictures.configurations), pictures.default_configuration) == (["2d_lowres", "2d_cascade"], "2d_lowres")
    assert pictures.configurations["2d_cascade"].space.slice_axis == 0


def test_patches_show_the_landmarks_of_large_cases() -> None:
    fingerprint = make_fingerprint((64, 64, 64), spread=0.9)
    large = [replace(c, shape=(96, 64, 64), shape_after_crop=(96, 64, 64)) for c in fingerprint.cases[:12]]
    long = [replace(c, points=tuple((1.5 * p[0], *p[1:]) for p in c.points if p)) for c in large]
    c = single(make_plan(replace(fingerprint, cases=(*long, *fingerprint.cases[12:])), CPU))
    assert c.patch.patch_size == (96, 64, 64)
    odd = single(make_plan(replace(fingerprint, cases=(*long[:3], *fingerprint.cases[3:])), CPU))  # one in ten does not count
    assert odd.patch.patch_size == (64, 64, 64)


def test_cases_are_not_cropped_where_landmarks_lie_beyond() -> None:
    fingerprint = make_fingerprint((64, 64, 64))
    cropped = replace(
        fingerprint, median_relative_size=0.4, cases=tuple(replace(c, shape_after_crop=(32, 64, 48)) for c in fingerprint.cases)
    )
    c = single(make_plan(cropped, CPU))
    assert (c.space.crop, c.why["space.crop"]) == ("nonzero", "leaves 40 % of the voxels (median)")
    beyond = replace(cropped, cases=(replace(cropped.cases[0], n_outside_crop=2), *cropped.cases[1:]))
    c = single(make_plan(beyond, CPU))
    assert (c.space.crop, c.patch.patch_size) == ("none", (64, 64, 64))
    assert c.why["space.crop"].endswith("landmarks of 1 cases")


def test_label_maps_and_landmarks() -> None:
    """Label maps decide about the grid as without landmarks; a second head costs its maps."""
    both, bare = (make_fingerprint((80, 96, 88), labels=LIVER, n_landmarks=n) for n in (12, 1))
    bare = replace(bare, landmarks=LandmarkSet(()), landmark_statistics=None)
    plan, alone = make_plan(both, GPU), make_plan(bare, GPU)
    assert (plan.task, alone.task) == ("segmentation and landmarks", "segmentation")
    assert (list(plan.configurations), list(alone.configurations)) == (["3d_fullres"], ["3d_fullres", "2d"])
    c, other = plan.configurations["3d_fullres"], alone.configurations["3d_fullres"]
    assert replace(c, landmarks=None, footprint=None, why={}) == replace(
        other, footprint=None, why={}, patch=replace(other.patch, batch_size=c.patch.batch_size)
    )
    assert c.network.strides[0] == (1, 1, 1)
    assert c.network.deep_supervision
    assert c.landmarks is not None
    assert c.landmarks.sigma_mm == (1.0, 1.0, 1.0)
    assert c.footprint is not None
    assert c.footprint.training_gb == pytest.approx(plan_memory(plan, "3d_fullres", "bfloat16", "cuda").total / 1e9, abs=0.01)
    assert "2 classes and 12 landmarks" in c.why["footprint.prediction_ram_gb"]


def test_label_maps_and_landmarks_of_large_cases() -> None:
    plan = make_plan(make_fingerprint((400, 400, 400), labels=LIVER), GPU)
    assert list(plan.configurations) == ["3d_fullres", "3d_lowres", "3d_cascade"]
    assert plan.default_configuration == "3d_fullres"
    assert all(c.landmarks for c in plan.configurations.values())
    assert parse_plan(to_json(plan), "plan.json") == plan
    pictures = make_plan(make_fingerprint((1, 256, 256), labels=LIVER), GPU)
    assert single(pictures).network.strides[0] == (1, 1)


@pytest.mark.parametrize(
    ("labels", "pairs", "ndim", "device", "slice_axis", "axes", "reason"),
    [
        (NOTHING, True, 3, "cpu", None, (2,), "x is mirrored, 'a' and 'b' swap names: so few cases become twice as many"),
        (NOTHING, True, 2, "cuda", 0, (2,), "other axes are not: landmarks know top from bottom"),
        (NOTHING, False, 3, "cpu", None, (), "no axis is mirrored: no landmark is known to have a partner"),
        (NOTHING, True, 2, "cuda", 2, (), "x is not mirrored: it runs through the slices"),
        (LIVER, True, 3, "cuda", None, (2,), "landmarks know top from bottom and front from back"),
        (LIVER, True, 2, "cuda", 0, (2,), "y is not mirrored: landmarks know top"),
        (LIVER, False, 3, "cuda", None, (), "no axis is mirrored"),
        (LIVER, True, 3, "cpu", None, (), "3D cases are not mirrored on a CPU"),
    ],
)
def test_mirrored_axes_with_landmarks(
    labels: LabelSet, pairs: bool, ndim: int, device: str, slice_axis: int | None, axes: tuple[int, ...], reason: str
) -> None:
    landmarks = LandmarkSet(("a", "b", "c"), (("a", "b"),) if pairs else ())
    found, why = mirror_axes(labels, (), ndim=ndim, device=device, slice_axis=slice_axis, landmarks=landmarks)
    assert found == axes
    assert reason in why


def test_the_mirroring_reason_counts_pairs() -> None:
    landmarks = LandmarkSet(("a", "b", "c", "d"), (("a", "b"), ("c", "d")))
    assert "2 pairs such as 'a' and 'b' swap names" in mirror_axes(NOTHING, (), ndim=3, device="cpu", landmarks=landmarks)[1]


def test_no_branch_without_memory_for_it() -> None:
    for memory_gb in np.arange(1.5, 4, 0.05):  # somewhere a patch fits without the branch only
        c = fullres_beside_a_liver(Budget("cuda", float(memory_gb)), n_landmarks=40)
        assert c.landmarks is not None
        if c.landmarks.scn is None:
            assert re.search(r"no spatial configuration branch: with one a training would take \d", c.why["landmarks.scn"])
            return
    raise AssertionError("always room for a branch")


def test_no_branch_that_takes_too_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmark_head, "MOST_WORK", 1e-9)
    c = fullres_beside_a_liver(CPU)
    assert c.landmarks is not None
    assert c.landmarks.scn is None
    assert c.why["landmarks.scn"].endswith("% of the network's work")


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    """Volumes and pictures with 1, 2 or 200 landmarks, with label maps or without, as arguments of `fingerprint`."""
    ndim, edge = draw(st.sampled_from((2, 3))), st.integers(4, 900)
    n = draw(st.sampled_from((0, 0, 1, 40)))
    return {
        "shape": (1 if ndim == 2 else draw(edge), draw(edge), draw(edge)),
        "n_landmarks": draw(st.sampled_from((1, 2, 7, 200))),
        "n_cases": draw(st.integers(1, 12)),
        "spread": draw(st.sampled_from((0.05, 0.4, 0.95))),
        "spacing": (draw(st.sampled_from((0.4, 1.0, 5.0))), 1.0, draw(st.sampled_from((0.4, 1.0)))),
        "labels": LabelSet(tuple(f"structure {i}" for i in range(n)), tuple(range(1, n + 1))),
        "pairs": draw(st.booleans()),
        "channels": draw(st.sampled_from((1, 4))),
    }


budgets = st.builds(
    Budget,
    device=st.sampled_from(("cpu", "cuda")),
    memory_gb=st.floats(0.7, 40),
    family=st.sampled_from(tuple(FAMILIES)),
    time_s=st.sampled_from((None, 120.0, 3600.0)),
)


@settings(max_examples=60, deadline=None)
@given(datasets(), budgets)
def test_plans_are_valid_and_within_budget(arguments: dict[str, Any], budget: Budget) -> None:
    fingerprint = make_fingerprint(**arguments)
    try:
        plan = make_plan(fingerprint, budget)
    except ResourceError as error:  # then the memory that it names is enough
        found = re.search(r"at least ([\d.]+) GB", str(error))
        assert found
        budget = replace(budget, memory_gb=float(found[1]))
        plan = make_plan(fingerprint, budget)
    assert parse_plan(to_json(plan), "plan.json") == plan
    alone = not fingerprint.labels.names
    assert not alone or list(plan.configurations) in (
        *(["3d_fullres"], ["2d"], ["3d_lowres", "3d_cascade"], ["2d_lowres", "2d_cascade"]),
    )
    for name, c in plan.configurations.items():
        overdraft = FAMILIES[budget.family].allowed_overrun if budget.device == "cuda" else 1.0
        assert c.footprint is not None
        assert c.footprint.training_gb <= overdraft * budget.memory_gb + 0.01
        memory = plan_memory(plan, name, budget.number_type, budget.device)  # type: ignore[arg-type]
        assert c.footprint.training_gb == pytest.approx(memory.total / 1e9, abs=0.01)
        io = plan_io(plan, plan.configurations[name])
        bare = multiply_accumulates(c.network, c.patch.patch_size, replace(io, scn=None))
        assert multiply_accumulates(c.network, c.patch.patch_size, io) <= (1 + MOST_WORK) * bare
        limited = budget.device == "cpu" or budget.time_s is not None
        if limited and len(c.network.strides) + alone > 3:
            work = 3e-9 * c.patch.batch_size * bare
            limit = budget.batch_limit_s if c.patch.batch_size > 2 else budget.patch_limit_s
            assert work <= limit * budget.speed * (1 + 1e-9)
        if c.landmarks and c.landmarks.scn:
            coarse = [n // s for n, s in zip(c.patch.patch_size, c.network.strides[0])]
            assert all(n % f == 0 for n, f in zip(coarse, c.landmarks.scn.factor))


@settings(max_examples=20, deadline=None)
@given(st.permutations((0, 1, 2)), st.sampled_from((CPU, GPU)), st.sampled_from(((40, 90, 150), (120, 240, 300))))
def test_plans_follow_an_axis_permutation(order: list[int], budget: Budget, shape: tuple[int, ...]) -> None:
    fingerprint = make_fingerprint(shape, spacing=(2.1, 1.0, 0.9))

    def moved(values: tuple) -> tuple:  # type: ignore[type-arg]
        return tuple(values[a] for a in order)

    turned = tuple(
        replace(
            c,
            spacing=moved(c.spacing),
            shape=moved(c.shape),
            shape_after_crop=moved(c.shape),
            points=tuple(moved(p) for p in c.points if p),
        )
        for c in fingerprint.cases
    )
    statistics = measure_landmarks(fingerprint.landmarks.names, [c.landmarks for c in turned])
    before, after = (
        single(make_plan(fingerprint, budget)),
        single(make_plan(replace(fingerprint, cases=turned, landmark_statistics=statistics), budget)),
    )
    assert after.patch.patch_size == moved(before.patch.patch_size)
    assert after.space.spacing_mm == pytest.approx(moved(before.space.spacing_mm))
    assert after.network.strides == tuple(map(moved, before.network.strides))


def test_memory_of_many_maps_shrinks_the_patch() -> None:
    few, many = (single(make_plan(make_fingerprint((200, 200, 200), n_landmarks=n), Budget("cuda", 4))) for n in (2, 200))
    shown = [prod(c.patch.patch_size) * prod(c.space.spacing_mm) for c in (few, many)]
    assert many.space.spacing_mm > few.space.spacing_mm or shown[1] < shown[0]
    io = NetworkIO(n_channels=1, n_classes=0, n_landmarks=200)
    memory = training_memory(many.network, many.patch.patch_size, io, batch_size=2, compute="bfloat16", device="cuda")
    assert memory.total <= 4e9
