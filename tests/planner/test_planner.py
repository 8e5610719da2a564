"""Planning: nnU-Net's own plans of the Decathlon first, then rules by hand, budgets, other axis orders, reasons."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest
from helpers.limits import HANGS
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset import read_description
from autoseg.errors import DataError, ResourceError, UsageError
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint
from autoseg.fingerprint.dataset import Fingerprint, Intensity
from autoseg.footprint import NetworkIO, conv_elements, multiply_accumulates, training_memory
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS
from autoseg.plan import Configuration, Plan, parse_plan
from autoseg.planner.budget import CPU_PATCH_S, CPU_STEP_S, TYPICAL_GMACS_PER_S
from autoseg.planner.cost import WIDE, NetworkCost
from autoseg.planner.family import FAMILIES
from autoseg.planner.lowres import most_voxels
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.nnunet import FILE, from_nnunet
from autoseg.planner.patch import batch_size, shrink, steady_batch_size
from autoseg.planner.spacing import coarsest_first, median_shape, target_spacing
from autoseg.planner.topology import find_topology, next_multiple
from autoseg.planner.training import RECIPES
from autoseg.system.records import to_json

GPU = Budget("cuda", 8)
CPU = Budget("cpu", 8)
CPU_STEP_GMACS = CPU_STEP_S * TYPICAL_GMACS_PER_S["cpu"]
CPU_PATCH_GMACS = CPU_PATCH_S * TYPICAL_GMACS_PER_S["cpu"]
TASKS = [
    "Task01_BrainTumour",
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task06_Lung",
    "Task07_Pancreas",
]


def make_fingerprint(
    cases: list[tuple[tuple[float, ...], tuple[int, ...]]],
    labels: LabelSet = LabelSet(("liver",), (1,)),  # noqa: B008
    channels: tuple[str, ...] = ("MR",),
    share: float = 1.0,
    intensities: tuple[Intensity, ...] | None = None,
) -> Fingerprint:
    """A fingerprint of cases given as (spacing, shape)."""
    case_fingerprints = tuple(
        CaseFingerprint(
            name=f"case_{i:03d}",
            digest="",
            spacing=spacing,  # type: ignore[arg-type]
            shape=shape,  # type: ignore[arg-type]
            shape_after_crop=shape,  # type: ignore[arg-type]
            voxels=(1,),
            lateral_positions=(),
            intensities=(),
            tails=(),
            remark="",
        )
        for i, (spacing, shape) in enumerate(cases)
    )
    intensities = intensities or (Intensity(50.0, 10.0, 49.0, 0.0, 100.0, 12.5, 90.0),) * len(channels)
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset="made up",
        channels=channels,
        labels=labels,
        landmarks=NO_LANDMARKS,
        intensities=intensities,
        structures=(),
        landmark_statistics=None,
        median_relative_size=share,
        n_empty_cases=0,
        ceilings=(),
        cases=case_fingerprints,
    )


def load_nnunet(folder: Path) -> Fingerprint:
    """nnU-Net's fingerprint of a dataset as ours."""
    path = folder / FILE
    return from_nnunet(folder.name, read_description(folder), json.loads(path.read_text()), path)


def default_of(plan: Plan) -> Configuration:
    return plan.configuration(None)[1]


def msd(real_data: Callable[[str], Path], task: str) -> Path:
    folder = real_data(".").resolve().parent / "msd" / task
    if not folder.exists():
        pytest.skip(f"no {folder}")
    return folder


@pytest.mark.real
@pytest.mark.parametrize("task", TASKS)
def test_decathlon_plans_equal_those_of_nnunet(real_data: Callable[[str], Path], task: str) -> None:
    folder = msd(real_data, task)
    fingerprint = load_nnunet(folder)
    started = time.perf_counter()
    plan = make_plan(fingerprint, GPU)
    assert time.perf_counter() - started < HANGS
    published = json.loads((folder / "nnunet_plans.json").read_text())["configurations"]
    coarse = {"3d_cascade": {**published["3d_fullres"], "previous": "3d_lowres"}} if "3d_lowres" in published else {}
    published = {"3d_fullres": published["3d_fullres"], **published, **coarse}
    assert set(plan.configurations) == set(published) - {"3d_cascade_fullres"}
    for name, ours in plan.configurations.items():
        theirs = published[name]
        assert ours.previous_stage == theirs.get("previous")
        network = theirs["architecture"]["arch_kwargs"]
        assert ours.space.spacing_mm == pytest.approx(theirs["spacing"], abs=1e-9)
        assert ours.patch.patch_size == tuple(theirs["patch_size"])
        assert ours.patch.batch_size == theirs["batch_size"]
        assert ours.training.batch_dice == theirs["batch_dice"]
        assert ours.network.features == tuple(network["features_per_stage"])
        assert ours.network.strides == tuple(map(tuple, network["strides"]))
        assert ours.network.kernel_sizes == tuple(map(tuple, network["kernel_sizes"]))
        assert ours.network.encoder_blocks == tuple(network["n_conv_per_stage"])
        assert ours.network.decoder_blocks == tuple(network["n_conv_per_stage_decoder"])
        shape = ", ".join(f"{n:g}" for n in theirs["median_image_size_in_voxels"])
        assert ours.space.slice_axis == (0 if name == "2d" else None)
        assert ours.why["patch.patch_size"].startswith(f"median case is ({shape}) voxels")
    theirs = published["3d_fullres"]
    scheme = {(False, "Z"): "zscore", (True, "Z"): "zscore_nonzero", (False, "C"): "ct"}
    schemes = zip(theirs["use_mask_for_norm"], theirs["normalization_schemes"])
    assert [c.normalization for c in plan.data.channels] == [scheme[masked, name[0]] for masked, name in schemes]
    assert median_shape(fingerprint.cases, default_of(plan).space.spacing_mm) == tuple(theirs["median_image_size_in_voxels"])


# patch, halvings along each axis, and the coarse spacing if there is one, of nnU-Net's presets for 8, 24 and 40 GB
RESENC = {
    "Task01_BrainTumour": (((128, 128, 128), None), ((160, 192, 160), None), ((160, 192, 160), None)),
    "Task02_Heart": (((80, 192, 160), None), ((112, 288, 224), None), ((128, 320, 256), None)),
    "Task03_Liver": (((128, 128, 128), 2.5), ((192, 192, 192), 1.653), ((224, 256, 224), 1.384)),
    "Task04_Hippocampus": (((40, 56, 40), None),) * 3,
    "Task05_Prostate": (((20, 256, 256), None), ((20, 320, 320), None), ((20, 320, 320), None)),
    "Task06_Lung": (((80, 192, 160), 2.386), ((112, 256, 256), 1.673), ((128, 320, 320), None)),
    "Task07_Pancreas": (((40, 224, 192), 2.652), ((56, 320, 256), None), ((64, 384, 384), None)),
}


@pytest.mark.real
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("preset", "memory"), [(0, 8), (1, 24), (2, 40)])
def test_residual_plans_have_the_patches_of_nnunet(
    real_data: Callable[[str], Path], task: str, preset: int, memory: float
) -> None:
    plan = make_plan(load_nnunet(msd(real_data, task)), Budget("cuda", memory, "residual"))
    patch, coarse = RESENC[task][preset]
    chosen = default_of(plan)
    assert chosen.patch.patch_size == patch
    assert chosen.network.strides == find_topology(chosen.space.spacing_mm, patch).strides
    n = len(chosen.network.strides)
    assert chosen.network.encoder_blocks == (1, 3, 4, 6, 6, 6, 6)[:n]
    assert chosen.network.decoder_blocks == (1,) * (n - 1)
    assert chosen.patch.batch_size <= 9
    assert ("3d_lowres" in plan.configurations) == (coarse is not None)
    if coarse:
        assert max(plan.configurations["3d_lowres"].space.spacing_mm) == pytest.approx(coarse, abs=1e-3)
    assert f"nnU-Net's ResEnc {('M', 'L', 'XL')[preset]}" in chosen.why["network.kind"]


@pytest.mark.real
@pytest.mark.parametrize("task", ["Task02_Heart", "Task05_Prostate", "Task07_Pancreas"])
@pytest.mark.parametrize("place", [1, 2])
def test_plans_follow_the_coarse_axis(real_data: Callable[[str], Path], task: str, place: int) -> None:
    fingerprint = load_nnunet(msd(real_data, task))
    order = {1: (1, 0, 2), 2: (1, 2, 0)}[place]  # z becomes axis `place`, y stays before x
    _expect_reordered(fingerprint, GPU, order)


def _expect_reordered(fingerprint: Fingerprint, budget: Budget, order: tuple[int, ...]) -> None:
    def moved(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[a] for a in order)

    cases = [(moved(c.spacing), moved(c.shape)) for c in fingerprint.cases]
    turned = make_fingerprint(
        cases, fingerprint.labels, fingerprint.channels, fingerprint.median_relative_size, fingerprint.intensities
    )
    straight, other = make_plan(fingerprint, budget), make_plan(turned, budget)
    assert list(straight.configurations) == list(other.configurations)
    fine = straight.configurations["3d_fullres"].space.spacing_mm
    for name, before in straight.configurations.items():
        if name == "2d" and fine.count(max(fine)) > 1:
            continue  # which of equally coarse axes runs through the slices is a matter of order
        after = other.configurations[name]
        here, there = before.space.in_volume, after.space.in_volume
        assert after.window == moved(before.window)
        assert after.patch.batch_size == before.patch.batch_size
        assert there(after.space.spacing_mm, 0) == moved(here(before.space.spacing_mm, 0))
        for key in ("strides", "kernel_sizes"):
            rows = zip(getattr(before.network, key), getattr(after.network, key), strict=True)
            assert all(there(b, 1) == moved(here(a, 1)) for a, b in rows)


def test_spacing_is_the_median_unless_slices_are_thick_and_few() -> None:
    cases = [((s, 1.0, 1.0), (20, 100, 100)) for s in (1.5, 4.0, 5.0, 6.0, 7.0)]
    spacing, why = target_spacing(make_fingerprint(cases).cases)
    assert spacing == pytest.approx((1.5 + 0.4 * 2.5, 1, 1))  # tenth percentile: 0.4 of the way from the first to the second
    assert "10th percentile 2.5 mm" in why

    many_slices = [(s, (40, 100, 100)) for s, _ in cases]
    assert target_spacing(make_fingerprint(many_slices).cases) == ((5.0, 1.0, 1.0), "median spacing of 5 cases is (5, 1, 1) mm")

    some_thin = [((s, 1.0, 1.2), (20, 100, 100)) for s in (0.5, 0.6, 5.0, 6.0, 7.0)]
    spacing, why = target_spacing(make_fingerprint(some_thin).cases)
    assert spacing == pytest.approx((1.20001, 1, 1.2))
    assert "coarser in-plane spacing 1.2 mm" in why


@pytest.mark.parametrize(
    ("spacing", "shape", "message"),
    [
        (
            (0.0, 1.0, 1.0),
            (9, 9, 9),
            r"case case_001: the fingerprint holds a spacing that is not positive and finite; found: \(0\.0, 1\.0, 1\.0\) mm",
        ),
        ((1.0, float("nan"), 1.0), (9, 9, 9), "holds a spacing that is not positive and finite"),
        ((1.0, 1.0, -1.0), (9, 9, 9), "allowed: more than 0 mm along every axis; fix: correct the header"),
        ((1.0, 1.0, float("inf")), (9, 9, 9), "holds a spacing that is not positive and finite"),
        ((1.0, 1.0, 1.0), (9, 0, 9), "holds a shape that is not positive and finite"),
    ],
)
def test_invalid_fingerprints_are_refused(spacing: tuple[float, ...], shape: tuple[int, ...], message: str) -> None:
    good = ((1.0, 1.0, 1.0), (9, 9, 9))
    with pytest.raises(DataError, match=message):
        make_plan(make_fingerprint([good, (spacing, shape)]), GPU)
    with pytest.raises(DataError, match="nothing can be planned without a case"):
        make_plan(make_fingerprint([]), GPU)


def test_coarsest_axis_comes_first() -> None:
    assert coarsest_first((1, 1, 3)) == (2, 0, 1)
    assert coarsest_first((1, 1, 1)) == (0, 1, 2)


def test_topology_by_hand() -> None:
    # 36→18→9→5 (rounded up), so three halvings: each axis a multiple of 8
    topology = find_topology((1, 1, 1), (36, 50, 35))
    assert topology.patch_size == (40, 56, 40)
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.divisors == (8, 8, 8)
    # z is 3 times as coarse: first halved when y and x have caught up (spacings 3, 2, 2); kernel 3 from there on
    topology = find_topology((3, 1, 1), (16, 64, 64))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    # a single axis of 8 to 11 voxels is not halved alone, one of 12 is
    assert find_topology((1, 1, 1), (4, 4, 11)).strides == ((1, 1, 1),)
    assert find_topology((1, 1, 1), (4, 4, 12)).strides == ((1, 1, 1), (1, 1, 2))


def test_shrinking_does_not_skip_sizes() -> None:
    # 256 can be halved six times (divisor 64), 192 only five (32): the next size is 224; of equal axes the last goes first
    topology = find_topology((1, 1), (256, 256))
    smaller = shrink(topology, (1, 1), (300, 300))
    assert smaller is not None
    assert (topology.divisors, smaller.patch_size) == ((64, 64), (256, 224))
    assert shrink(find_topology((1, 1), (8, 8)), (1, 1), (8, 8)) is None  # no halving would be left


def test_smallest_multiple() -> None:
    assert next_multiple((36, 50.5, 40), (8, 8, 8)) == (40, 56, 40)


def test_batch_by_hand() -> None:
    reference = FAMILIES["plain"].presets_3d[0]
    assert batch_size(reference, 56_000_000, (10, 10, 10), 1e9) == 20  # ten times cheaper than a sample of the reference pair
    assert batch_size(reference, 56_000_000, (10, 10, 10), 140_000) == 7  # 5 % of the voxels
    assert batch_size(reference, 560_000_000, (10, 10, 10), 1) == 2


def test_nnunets_recipe_by_name() -> None:
    plan = make_plan(make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 5), replace(GPU, recipe="sgd_poly"))
    t = default_of(plan).training
    assert (t.optimizer, t.learning_rate, t.weight_decay, t.schedule) == ("sgd", 1e-2, 3e-5, "poly")
    assert (t.epochs, t.steps_per_epoch, t.warmup_fraction, t.ema_decay) == (1000, 250, 0, 0)
    assert (t.loss, t.batch_dice) == ("dice_ce", False)
    assert parse_plan(to_json(plan), "plan.json") == plan
    assert plan.origin.recipe == "sgd_poly"
    allowed = "adamw_constant, adamw_cosine, sgd_poly"
    with pytest.raises(UsageError, match=rf"no such recipe - did you mean 'sgd_poly'\?; found: sgd_ploy; allowed: {allowed}"):
        Budget("cuda", 8, recipe="sgd_ploy")


def test_dice_of_the_batch_where_patches_lack_structures() -> None:
    """nnU-Net's rule, by its published plans: 2D, and where there is a coarse configuration."""
    plan = make_plan(make_fingerprint([((1.0,) * 3, (400, 400, 400))] * 9), GPU)
    assert {n: c.training.batch_dice for n, c in plan.configurations.items()} == {
        "3d_fullres": True,
        "3d_lowres": False,
        "3d_cascade": True,
        "2d": True,
    }
    small = make_plan(make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 9), GPU)
    assert not small.configurations["3d_fullres"].training.batch_dice
    assert "a patch shows 100 % of a case" in small.configurations["3d_fullres"].why["training.batch_dice"]


def test_2d_where_every_case_is_one_slice() -> None:
    cases = [((1.0, 0.5, 0.5), (1, 256, 300))] * 20
    plan = make_plan(make_fingerprint(cases), GPU)
    assert list(plan.configurations) == ["2d"]
    chosen = default_of(plan)
    assert chosen.space.spacing_mm == (0.5, 0.5)
    assert chosen.patch.patch_size == (256, 320)
    assert chosen.network.features == (32, 64, 128, 256, 512, 512, 512)
    assert chosen.training.mirror_axes == (1, 2)
    assert chosen.training.batch_dice
    one_volume = [*cases, ((1.0, 0.5, 0.5), (40, 256, 300))]
    assert list(make_plan(make_fingerprint(one_volume), GPU).configurations) == ["2d"]  # nnU-Net's rule: the median case decides
    sagittal = make_plan(make_fingerprint([((0.4, 0.5, 1.0), (256, 300, 1))] * 20), GPU)
    assert list(sagittal.configurations) == ["2d"]
    chosen = default_of(sagittal)
    assert (chosen.space.slice_axis, chosen.space.spacing_mm, chosen.window) == (2, (0.4, 0.5), (256, 320, 1))
    assert chosen.why["space.slice_axis"] == "the median case is a single slice along x"
    assert chosen.training.mirror_axes == chosen.inference.mirror_axes == ()
    assert chosen.why["training.mirror_axes"].startswith(
        "x is not mirrored: it runs through the slices; y and z are not mirrored"
    )
    coronal = default_of(make_plan(make_fingerprint([((0.4, 1.0, 0.5), (256, 1, 300))] * 20), GPU))
    assert (coronal.space.slice_axis, coronal.training.mirror_axes) == (1, (2,))
    assert "; z is not mirrored: in canonical orientation" in coronal.why["training.mirror_axes"]
    thick = make_plan(make_fingerprint([((0.5, 0.5, 4.0), (200, 200, 40))] * 20), GPU).configurations["2d"]
    assert (thick.space.slice_axis, thick.training.mirror_axes) == (2, ())


@pytest.mark.parametrize(
    ("spacing", "shape", "patch", "stride"),
    [
        ((1.0, 1.0, 1.0), (3, 5, 6), (8, 8, 8), (2, 2, 2)),
        ((3.0, 1.0, 1.0), (3, 5, 6), (3, 8, 8), (1, 2, 2)),
        ((9.0, 9.0, 1.0), (4, 4, 4), (4, 4, 12), (1, 1, 2)),
        ((1.0, 1.0, 1.0), (1, 5, 6), (8, 8), (2, 2)),
    ],
)
def test_tiny_cases_get_a_network_of_two_stages(
    spacing: tuple[float, ...], shape: tuple[int, ...], patch: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    chosen = next(iter(make_plan(make_fingerprint([(spacing, shape)] * 10), GPU).configurations.values()))
    assert chosen.patch.patch_size == patch
    assert chosen.network.strides == ((1,) * len(patch), stride)


@pytest.mark.parametrize(
    ("channel", "share", "normalization", "reason"),
    [
        ("CT", 0.2, "ct", "12.5 to 90"),
        ("ct", 1.0, "ct", "absolute units"),
        ("T1", 1.0, "zscore", "leaves 100 %"),
        ("T1", 0.74, "zscore_nonzero", "only 74 %"),
        ("zscore", 0.75, "zscore", "zeros belong"),
        ("rgb_to_0_1", 0.2, "rgb_0_1", "asked for"),
        ("rescale_to_0_1", 1.0, "rescale_0_1", "asked for"),
        ("noNorm", 1.0, "none", "'noNorm'"),
    ],
)
def test_normalization_follows_the_channel_name(channel: str, share: float, normalization: str, reason: str) -> None:
    plan = make_plan(make_fingerprint([((1.0,) * 3, (32,) * 3)] * 3, channels=(channel,), share=share), GPU)
    (chosen,) = plan.data.channels
    assert (chosen.name, chosen.normalization) == (channel, normalization)
    assert (chosen.mean, chosen.std, chosen.percentile_00_5, chosen.percentile_99_5) == (50, 10, 12.5, 90)
    assert reason in plan.why["data.channels[0].normalization"]


@pytest.mark.parametrize(
    ("names", "ndim", "axes", "reason"),
    [
        (
            ("liver",),
            3,
            (2,),
            "x is mirrored: no structure has a side in its name (nnU-Net mirrors too); y and z are not mirrored: in",
        ),
        (("left kidney", "right kidney"), 3, (2,), "'left kidney' and 'right kidney' swap names"),
        (("heart", "left atrium"), 3, (), "x is not mirrored: the other side of 'left atrium' is no structure"),
        (("Anterior", "Posterior"), 3, (2,), "back to front, 'Anterior' is named after its place"),
        (("nucleus",), 2, (1, 2), "y is mirrored"),
        (("upper jaw",), 2, (2,), "y is not mirrored: 'upper jaw' is named after its place"),
        (("eye_L",), 2, (1,), "x is not mirrored: the other side of 'eye_L'"),
    ],
)
def test_mirrored_axes(names: tuple[str, ...], ndim: int, axes: tuple[int, ...], reason: str) -> None:
    labels = LabelSet(names, tuple(range(1, len(names) + 1)))
    found, why = mirror_axes(labels, (), ndim=ndim, device="cuda")
    assert found == axes
    assert reason in why
    on_cpu, why = mirror_axes(labels, (), ndim=ndim, device="cpu")
    assert on_cpu == (() if ndim == 3 else axes)
    assert ndim == 2 or why.startswith("3D cases are not mirrored on a CPU")


def test_cpu_is_narrower_and_says_so() -> None:
    chosen = default_of(make_plan(make_fingerprint([((1.0,) * 3, (36, 50, 35))] * 208), CPU))
    assert chosen.patch.patch_size == (36, 52, 36)  # 40x56x40 holds 1.42 times the voxels of the median case
    assert chosen.network.features == (16, 32, 64)
    assert chosen.network.decoder_blocks == (1, 1)
    assert "half of nnU-Net's 32" in chosen.why["network.features"]
    assert "lowered" in chosen.why["patch.batch_size"]
    assert "but for the last halving, which would need padding; 9×13×9 voxels at the bottleneck" in chosen.why["network.strides"]
    assert "one stage less on a CPU: a patch 1.3 times as large would be mostly padding" in chosen.why["patch.patch_size"]
    assert _step_gmacs(chosen) <= CPU_STEP_GMACS


def test_cpu_loses_batch_before_patch() -> None:
    small = default_of(make_plan(make_fingerprint([((1.0,) * 3, (48, 64, 48))] * 500), CPU))
    assert small.patch.patch_size == (48, 64, 48)
    assert 2 <= small.patch.batch_size < 25
    assert "CPU" not in small.why["patch.patch_size"]
    large = default_of(make_plan(make_fingerprint([((1.0,) * 3, (300, 300, 300))] * 500), CPU))
    assert large.patch.batch_size == 2
    assert max(large.patch.patch_size) < 128
    assert "shrunk on a CPU towards 0.83 s a step of 2 samples" in large.why["patch.patch_size"]
    assert CPU_STEP_GMACS < _step_gmacs(large) <= CPU_PATCH_GMACS
    tiny = default_of(make_plan(make_fingerprint([((1.0,) * 3, (16, 16, 16))] * 3), CPU))
    assert tiny.why["patch.batch_size"].endswith("multiply-accumulates a step on a CPU")


def test_cpu_limit_that_no_patch_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.planner.budget.CPU_PATCH_S", 1e-8)
    chosen = default_of(make_plan(make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 9), CPU))
    assert (chosen.patch.batch_size, len(chosen.network.strides)) == (2, 2)


def _step_gmacs(chosen: Configuration, n_classes: int = 2) -> float:
    return 3e-9 * chosen.patch.batch_size * multiply_accumulates(chosen.network, chosen.patch.patch_size, NetworkIO(1, n_classes))


def test_a_time_budget_lowers_what_a_step_takes() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (300, 300, 300))] * 50)
    free = make_plan(fingerprint, GPU).configurations["3d_fullres"]
    assert (free.patch.patch_size, free.network.features[0], free.training.time_s) == ((128, 128, 128), 32, None)
    hour = make_plan(fingerprint, replace(GPU, time_s=3600)).configurations["3d_fullres"]
    assert replace(hour, why={}, training=free.training) == replace(free, why={})
    assert hour.training.time_s == 3600
    assert "about 10686 steps of 0.29 s" in hour.why["training.time_s"]
    minutes = make_plan(fingerprint, replace(GPU, time_s=150)).configurations["3d_fullres"]
    assert minutes.network.features[0] == 16
    assert "a quarter of the work in the time there is" in minutes.why["network.features"]
    slow = make_plan(fingerprint, replace(GPU, time_s=150, gmacs_per_s=500)).configurations["3d_fullres"]
    assert prod(slow.patch.patch_size) < prod(minutes.patch.patch_size)
    assert "shrunk in the time there is towards 0.18 s a step of 2 samples" in slow.why["patch.patch_size"]
    assert 3e-9 * 2 * multiply_accumulates(slow.network, slow.patch.patch_size, NetworkIO(1, 2)) / 500 <= 0.85 * 150 / 700


def test_a_cpu_with_much_time_learns_a_wide_network() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (36, 50, 35))] * 208)
    widths = {}
    for time_s in (60.0, 600.0, 4 * 3600.0):
        chosen = default_of(make_plan(fingerprint, replace(CPU, time_s=time_s)))
        widths[time_s] = (chosen.network.features[0], chosen.patch.batch_size)
    assert widths == {60.0: (16, 2), 600.0: (16, 2), 4 * 3600.0: (32, 2)}
    assert default_of(make_plan(fingerprint, replace(CPU, time_s=60.0))).patch.patch_size < (36, 52, 36)


def test_faster_cpus_get_larger_patches() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (300, 300, 300))] * 50)
    slow, fast = (default_of(make_plan(fingerprint, replace(CPU, gmacs_per_s=s))).patch for s in (30, 480))
    assert prod(slow.patch_size) < prod(fast.patch_size)


@pytest.mark.parametrize(
    ("spacing", "shape", "budget", "name", "reason"),
    [
        ((1.0, 1.0, 1.0), (1, 64, 64), GPU, "2d", "the median case is a single slice"),
        ((1.0, 1.0, 1.0), (4, 64, 64), GPU, "2d", "the median case has 4 slices"),
        ((8.1, 1.0, 1.0), (20, 64, 64), GPU, "2d", "slices are 8.1 times as thick as their pixels"),
        ((1.0, 1.0, 9.0), (64, 64, 20), GPU, "2d", "slices are 9 times as thick"),
        ((5.0, 1.0, 1.0), (20, 64, 64), GPU, "3d_fullres", "volumes are best segmented as volumes"),
        ((1.0, 1.0, 1.0), (400, 400, 400), GPU, "3d_fullres", "fine borders need the full resolution"),
        ((1.0, 1.0, 1.0), (400, 400, 400), replace(CPU, time_s=600), "3d_lowres", "steps a network for 3d_fullres would see"),
        (
            (1.0, 1.0, 1.0),
            (400, 400, 400),
            replace(GPU, time_s=60, gmacs_per_s=1000),
            "3d_lowres",
            "on the coarse grid the time is enough",
        ),
    ],
)
def test_which_configuration_to_train_first(
    spacing: tuple[float, ...], shape: tuple[int, ...], budget: Budget, name: str, reason: str
) -> None:
    plan = make_plan(make_fingerprint([(spacing, shape)] * 30), budget)
    assert plan.default_configuration == name
    assert reason in plan.why["default_configuration"]


@pytest.mark.parametrize(
    ("n_cases", "words"),
    [
        (1, "a single case leaves nothing to validate on: -f all"),
        (3, "with 3 cases .*: -f 0,1,2 v"),
        (19, "-f 0,1,2,3,4 v"),
        (20, ""),
    ],
)
def test_small_datasets_are_advised_to_train_all_folds(n_cases: int, words: str) -> None:
    reason = make_plan(make_fingerprint([((1.0,) * 3, (64, 64, 64))] * n_cases), GPU).why["default_configuration"]
    assert re.search(words, reason)
    assert (";" in reason) == (n_cases < 20)


def test_budget() -> None:
    with pytest.raises(UsageError, match=r"no plan can be made for this device; found: tpu; allowed: cpu, cuda"):
        Budget("tpu", 8)
    with pytest.raises(UsageError, match=r"no such family of networks - did you mean 'residual'\?.*allowed: plain, residual"):
        Budget("cuda", 8, "residul")
    for memory in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"the memory must be positive.*allowed: more than 0 GB"):
            Budget("cuda", memory)
    for time_s in (10.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"too little time to train; found: .* s; allowed: 20 s or more"):
            Budget("cuda", 8, time_s=time_s)
    with pytest.raises(UsageError, match=r"the speed must be positive; found: 0 GMAC/s; allowed: more than 0"):
        Budget("cuda", 8, gmacs_per_s=0)
    assert str(Budget("cuda", 24, "residual")) == "cuda with 24 GB, residual family"
    assert str(Budget("cpu", 8, time_s=5400)) == "cpu with 8 GB, plain family, 90 min"


def test_impossible_budgets_name_a_memory_that_is_enough() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 5)
    for device in ("cuda", "cpu"):
        with pytest.raises(ResourceError, match=r"even a patch of .* does not fit the memory; found: 0\.1 GB; allowed") as caught:
            make_plan(fingerprint, Budget(device, 0.1))
        assert 0.5 < _allowed(caught.value) < 0.8  # what the libraries take, and next to nothing
        assert default_of(make_plan(fingerprint, Budget(device, _allowed(caught.value)))).patch.batch_size >= 2

    spectral = make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 5, channels=("MR",) * 40_000)
    with pytest.raises(ResourceError, match=r"even a patch of .* does not fit the memory; found: 0\.6 GB; allowed") as caught:
        make_plan(spectral, Budget("cuda", 0.6))
    assert 0.6 < _allowed(caught.value) < 3
    make_plan(spectral, Budget("cuda", _allowed(caught.value)))


def test_the_named_memory_is_enough_for_every_configuration() -> None:
    """Slices of these cases need more than volumes do."""
    fingerprint = make_fingerprint([((1.0, 1.0, 1.0), (1, 1, 1)), ((3.0, 2.0, 3.0), (1, 9, 96))] * 9)
    for device, family in product(("cpu", "cuda"), FAMILIES):
        with pytest.raises(ResourceError, match=r"found: 0\.[35] GB; allowed: at least 0\.\d+ GB") as caught:
            make_plan(fingerprint, Budget(device, 0.5, family) if device == "cpu" else Budget(device, 0.3, family))
        make_plan(fingerprint, Budget(device, _allowed(caught.value), family))


def _allowed(error: ResourceError) -> float:
    return float(str(error.allowed).removeprefix("at least ").removesuffix(" GB"))


def test_many_classes_leave_less_for_the_patch() -> None:
    def planned(n: int, memory: float = 8) -> Configuration:
        labels = LabelSet(tuple(f"structure {i}" for i in range(n)), tuple(range(1, n + 1)))
        return make_plan(make_fingerprint([((1.0,) * 3, (300, 300, 300))] * 50, labels), Budget("cuda", memory)).configurations[
            "3d_fullres"
        ]

    few, some, many = (planned(n) for n in (1, 20, 117))
    assert few.patch == some.patch  # nnU-Net's plan, although the loss of 20 classes takes more
    assert prod(many.patch.patch_size) < prod(few.patch.patch_size)
    sizes = [c.footprint.training_gb for c in (few, some, many) if c.footprint]
    assert max(sizes) <= 8
    assert sizes[2] > 6


def test_a_cascade_fits_the_memory_with_its_previous_classes() -> None:
    for n in (1, 60, 150):
        labels = LabelSet(tuple(f"structure {i}" for i in range(n)), tuple(range(1, n + 1)))
        plan = make_plan(make_fingerprint([((1.0,) * 3, (400, 400, 400))] * 50, labels), GPU)
        fine, cascade = (plan.configurations[name].footprint for name in ("3d_fullres", "3d_cascade"))
        assert fine is not None
        assert cascade is not None
        assert all(c.footprint and c.footprint.training_gb <= 8 for c in plan.configurations.values())
        # of the whole case there is one channel more, whatever the number of structures
        assert cascade.prediction_ram_gb - fine.prediction_ram_gb < 1.5


def test_the_recipes_steps_decide_the_default_configuration() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (400, 400, 400))] * 3600)
    assert make_plan(fingerprint, GPU).default_configuration == "3d_lowres"
    assert (
        make_plan(fingerprint, replace(GPU, recipe="sgd_poly")).default_configuration == "3d_fullres"
    )  # five times as many steps


def test_the_footprint_of_a_plan_by_hand() -> None:
    chosen = default_of(
        make_plan(make_fingerprint([((1.0,) * 3, (36, 50, 35))] * 208, channels=("T1", "T2")), replace(CPU, gmacs_per_s=60))
    )
    footprint = chosen.footprint
    assert footprint is not None
    gmacs = 3e-9 * chosen.patch.batch_size * multiply_accumulates(chosen.network, chosen.patch.patch_size, NetworkIO(2, 2))
    assert footprint.step_s == pytest.approx(gmacs / 60, rel=1e-3)
    memory = training_memory(
        chosen.network,
        chosen.patch.patch_size,
        NetworkIO(2, 2),
        batch_size=chosen.patch.batch_size,
        compute="float32",
        device="cpu",
    )
    assert footprint.training_gb == pytest.approx(memory.total / 1e9, abs=0.006)
    assert footprint.prepared_gb == pytest.approx(208 * (36 * 50 * 35 * (2 * 1.4 + 0.05) + 4 * 10_000) / 1e9, rel=0.02)
    assert 0.4 < footprint.prediction_ram_gb < 0.7
    assert "of RAM in float32" in chosen.why["footprint.training_gb"]
    large = make_plan(make_fingerprint([((1.0,) * 3, (300, 300, 300))] * 50), Budget("cuda", 8, "residual")).configurations[
        "3d_fullres"
    ]
    assert large.footprint is not None
    assert large.footprint.training_gb > 8
    assert "more than 8 GB: nnU-Net's presets of this family" in large.why["footprint.training_gb"]


def test_presets_of_the_residual_family() -> None:
    family = FAMILIES["residual"]
    assert family.blocks(7) == (1, 3, 4, 6, 6, 6, 6)
    assert [family.reference(3, memory).elements for memory in (8, 24, 40)] == [6.8e8, 2.1e9, 3.6e9]
    assert family.reference(3, 16).elements == 2 * 6.8e8  # the preset below, in proportion
    assert family.reference(3, 4).elements == 6.8e8 / 2
    assert family.reference(2, 8).largest_sample == 1.35e8  # a 2D patch is small enough for a batch of 12 ...
    assert FAMILIES["plain"].reference(2, 8).largest_sample == 8.5e7 * 6  # ... in the plain family for one of 2
    assert family.reference(2, 39).elements == family.reference(2, 40).elements == 5.6e8  # less for each GB than at 24
    for ndim, elements in product((2, 3), (10**8, 5 * 10**8, 10**9, 2 * 10**9, 10**10)):
        needed = family.memory_for(ndim, elements)
        assert family.reference(ndim, needed * (1 + 1e-9)).largest_sample >= elements
        assert family.reference(ndim, needed * 0.99).largest_sample < elements
    scaled = default_of(make_plan(make_fingerprint([((1.0,) * 3, (400, 400, 400))] * 9), Budget("cuda", 30, "residual")))
    assert "ResEnc L, scaled from 24 to 30 GB" in scaled.why["network.kind"]


def test_residual_on_a_cpu_is_narrower() -> None:
    chosen = default_of(make_plan(make_fingerprint([((1.0,) * 3, (64, 64, 64))] * 50), Budget("cpu", 8, "residual")))
    assert chosen.network.kind == "residual_unet"
    assert chosen.network.features[0] == 16
    assert set(chosen.network.decoder_blocks) == {1}
    assert _step_gmacs(chosen) <= CPU_PATCH_GMACS


def test_a_steady_batch_by_hand() -> None:
    reference = FAMILIES["plain"].presets_3d[0]
    # memory holds 2.6 samples: nnU-Net makes three of them, the steady batch two
    elements = round(2 * 5.6e8 / 2.6)
    assert batch_size(reference, elements, (10, 10, 10), 1e9) == 3
    assert steady_batch_size(reference, elements, (10, 10, 10), 1e9, []) == 2
    # memory holds 5; two of the next larger patch are 2 · 2000 voxels, or 4 · 1000
    assert steady_batch_size(reference, round(2 * 5.6e8 / 5), (10, 10, 10), 1e9, [find_topology((1, 1, 1), (20, 10, 10))]) == 4


def test_a_plan_for_less_memory_is_kept_where_it_shows_more() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (80, 100, 100))] * 99)
    fits = [default_of(make_plan(fingerprint, Budget("cuda", memory))) for memory in (8, 8.1)]
    assert prod(fits[1].patch.patch_size) * fits[1].patch.batch_size >= prod(fits[0].patch.patch_size) * fits[0].patch.batch_size


def test_a_coarse_configuration_where_a_patch_sees_little() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (400, 400, 400))] * 9)
    plan = make_plan(fingerprint, GPU)
    assert list(plan.configurations) == ["3d_fullres", "3d_lowres", "3d_cascade", "2d"]
    fine, coarse = plan.configurations["3d_fullres"], plan.configurations["3d_lowres"]
    steps = coarse.space.spacing_mm[0]
    assert coarse.space.spacing_mm == pytest.approx((steps,) * 3)
    patch, voxels = prod(coarse.patch.patch_size), 400**3
    assert patch / (voxels / steps**3) >= 0.25 > patch / (voxels / (steps / 1.03) ** 3)
    why = coarse.why["space.spacing_mm"]
    assert f"covers {100 * prod(fine.patch.patch_size) / voxels:.2g} % of the median case" in why
    assert "good for large structures" in why
    # covers a quarter at once, or after so few steps that more than half of the voxels are left
    assert list(make_plan(make_fingerprint([((1.0,) * 3, (180, 180, 180))] * 9), GPU).configurations) == ["3d_fullres", "2d"]
    assert list(make_plan(make_fingerprint([((1.0,) * 3, (230, 230, 230))] * 9), GPU).configurations) == ["3d_fullres", "2d"]


def test_coarse_steps_start_with_the_fine_axes() -> None:
    fingerprint = make_fingerprint([((5.0, 0.7, 0.8), (120, 700, 700))] * 9)
    coarse = make_plan(fingerprint, GPU).configurations["3d_lowres"]
    z, y, x = coarse.space.spacing_mm
    assert (z, x / y) == (5.0, pytest.approx(0.8 / 0.7, rel=0.2))
    assert y > 0.7


def test_no_patch_is_larger_than_the_finest_stage_allows() -> None:
    for family in FAMILIES:
        cost = NetworkCost(NetworkIO(2, 4), WIDE, FAMILIES[family], "cuda", "bfloat16")
        for spacing in ((1.0, 1.0, 1.0), (3.0, 1.0, 1.0)):
            chosen = default_of(make_plan(make_fingerprint([(spacing, (500, 500, 500))] * 9), Budget("cuda", 8, family)))
            most = most_voxels(cost, Budget("cuda", 8, family), spacing)
            assert 0.4 * most < prod(chosen.patch.patch_size) < most


@pytest.mark.parametrize("budget", [GPU, CPU, Budget("cuda", 24, "residual"), Budget("cpu", 4, "residual")])
@pytest.mark.parametrize("shape", [(64, 64, 64), (700, 700, 700), (1, 64, 64)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_value_has_its_reason(budget: Budget, shape: tuple[int, ...], recipe: str) -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, shape)] * 5, channels=("T1", "T2"))
    plan = make_plan(fingerprint, replace(budget, recipe=recipe))
    assert len(plan.configurations) == {1: 1, 64: 2, 700: 4}[shape[0]]
    for name, chosen in plan.configurations.items():
        keys = {
            f"{g}.{k}"
            for g in ("space", "patch", "network", "training", "inference", "footprint")
            for k in vars(getattr(chosen, g))
        }
        absent = set() if name == "2d" else {"space.slice_axis"}
        assert set(chosen.why) == (keys - absent) | {"postprocess"} | ({"previous_stage"} if name == "3d_cascade" else set())
        assert all(chosen.why.values())
    assert set(plan.why) == {"default_configuration", "data.channels[0].normalization", "data.channels[1].normalization"}
    assert plan.origin.fingerprint == fingerprint.hash
    assert (plan.origin.device, plan.origin.memory_gb, plan.origin.family) == (budget.device, budget.memory_gb, budget.family)


axis_spacing = st.floats(0.01, 10)
case = st.tuples(st.tuples(*[axis_spacing] * 3), st.tuples(*[st.integers(1, 1200)] * 3))
budgets = st.builds(
    Budget,
    st.sampled_from(("cpu", "cuda")),
    st.floats(0.5, 80),
    st.sampled_from(tuple(FAMILIES)),
    st.none() | st.floats(20, 1e6),
    st.none() | st.floats(5, 50_000),
)


@st.composite
def fingerprints(draw: st.DrawFn) -> Fingerprint:
    """1 to 2000 cases of up to four kinds, 1 to 8 channels, 1 to 200 structures."""
    kinds = draw(st.lists(case, min_size=1, max_size=4))
    n_cases = draw(st.integers(1, 2000))
    n = draw(st.integers(1, 200))
    labels = LabelSet(tuple(f"structure {i}" for i in range(n)), tuple(range(1, n + 1)))
    return make_fingerprint((kinds * n_cases)[:n_cases], labels, ("MR",) * draw(st.integers(1, 8)))


@settings(max_examples=40, deadline=None)
@given(fingerprints(), budgets)
def test_plans_are_valid_and_within_budget(fingerprint: Fingerprint, budget: Budget) -> None:
    try:
        plan = make_plan(fingerprint, budget)
    except ResourceError as error:  # then the memory that it names is enough
        budget = replace(budget, memory_gb=_allowed(error))
        plan = make_plan(fingerprint, budget)
    assert parse_plan(to_json(plan), "plan.json") == plan
    memory, io = budget.memory_gb, NetworkIO(len(fingerprint.channels), fingerprint.labels.n_classes)
    for chosen in plan.configurations.values():
        reference = FAMILIES[budget.family].reference(chosen.ndim, memory)
        elements = conv_elements(chosen.network, chosen.patch.patch_size, io)
        assert elements <= reference.largest_sample
        assert chosen.patch.batch_size >= 2
        if memory < 8:  # from there on nnU-Net's own plans may come in, whose batches are rounded up at times
            assert chosen.patch.batch_size * elements <= reference.elements * reference.batch_size
        assert chosen.patch.batch_size * elements <= 1.2 * reference.elements * reference.batch_size
        overdraft = FAMILIES[budget.family].allowed_overrun if budget.device == "cuda" else 1.0
        assert chosen.footprint is not None
        assert chosen.footprint.training_gb <= overdraft * memory + 0.01
        for axis, n in enumerate(chosen.patch.patch_size):
            divisor = prod(row[axis] for row in chosen.network.strides)
            assert divisor == 1 or n // divisor >= 4
        limited = budget.device == "cpu" or budget.time_s is not None
        if limited and len(chosen.network.strides) > 2:
            work = 3e-9 * chosen.patch.batch_size * multiply_accumulates(chosen.network, chosen.patch.patch_size, io)
            limit = budget.batch_limit_s if chosen.patch.batch_size > 2 else budget.patch_limit_s
            assert work <= limit * budget.speed * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(fingerprints(), st.floats(0.5, 80), st.floats(1, 4), st.sampled_from(tuple(FAMILIES)))
def test_more_memory_never_shows_less(fingerprint: Fingerprint, memory: float, factor: float, family: str) -> None:
    try:
        before = make_plan(fingerprint, Budget("cuda", memory, family))
    except ResourceError:
        return
    after = make_plan(fingerprint, Budget("cuda", memory * factor, family))
    for name in {"2d", "3d_fullres"} & before.configurations.keys():
        less, more = before.configurations[name].patch, after.configurations[name].patch
        assert more.batch_size * prod(more.patch_size) >= less.batch_size * prod(less.patch_size)


@settings(max_examples=25, deadline=None)
@given(
    st.permutations((0, 1, 2)),
    st.permutations((31, 90, 150, 260, 700)),
    st.sampled_from((0.6, 1.0, 2.1, 5.0)),
    st.sampled_from((GPU, CPU, replace(GPU, memory_gb=3.0), Budget("cuda", 24, "residual"))),
)
def test_plans_follow_an_axis_permutation(order: list[int], shape: list[int], coarse: float, budget: Budget) -> None:
    fingerprint = make_fingerprint([((coarse, 1.0, 0.9), tuple(shape[:3]))] * 10)
    _expect_reordered(fingerprint, budget, tuple(order))


@pytest.mark.parametrize("budget", [GPU, CPU, Budget("cuda", 24, "residual"), Budget("cpu", 2, "residual")])
@pytest.mark.parametrize("shape", [(400, 400, 400), (90, 900, 1100), (30, 700, 700)])
def test_skipping_hopeless_spacings_changes_no_plan(
    budget: Budget, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = make_fingerprint([((3.0, 1.0, 0.9), shape)] * 9)
    plan = make_plan(fingerprint, budget)
    monkeypatch.setattr("autoseg.planner.lowres.most_voxels", lambda *_: float("inf"))
    assert make_plan(fingerprint, budget) == plan


def test_ct_of_a_single_intensity_is_scaled_case_by_case() -> None:
    fingerprint = make_fingerprint([((1.0,) * 3, (32,) * 3)] * 3, channels=("CT",))
    constant = replace(fingerprint.intensities[0], std=0.0, percentile_00_5=5.0, percentile_99_5=5.0)
    plan = make_plan(replace(fingerprint, intensities=(constant,)), GPU)
    assert plan.data.channels[0].normalization == "zscore"
    assert "have a single intensity" in plan.why["data.channels[0].normalization"]
    assert parse_plan(to_json(plan), "plan.json") == plan
