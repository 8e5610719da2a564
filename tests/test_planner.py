"""Planning: nnU-Net's own plans of the Decathlon first, then rules by hand, budgets, other axis orders, reasons."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ResourceError, UsageError
from autoseg.fingerprint import SCHEMA_VERSION, CaseFacts, Fingerprint, Intensity
from autoseg.footprint import conv_elements, multiply_accumulates
from autoseg.labels import LabelSet
from autoseg.plan import Configuration, Plan, parse_plan
from autoseg.planner import Budget, make_plan
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.patch import REFERENCES, batch_size, shrink
from autoseg.planner.processor import CPU_PATCH_GMACS, CPU_STEP_GMACS
from autoseg.planner.spacing import coarsest_first, median_shape, target_spacing
from autoseg.planner.topology import find_topology, next_multiple
from autoseg.records import to_json

GPU = Budget("cuda", 8)
CPU = Budget("cpu", 8)
TASKS = [
    "Task01_BrainTumour",
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task06_Lung",
    "Task07_Pancreas",
]
STATISTICS = ("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5")


def fingerprint(
    cases: list[tuple[tuple[float, ...], tuple[int, ...]]],
    labels: LabelSet = LabelSet(("liver",), (1,)),  # noqa: B008
    channels: tuple[str, ...] = ("MR",),
    share: float = 1.0,
    intensities: tuple[Intensity, ...] | None = None,
) -> Fingerprint:
    """A fingerprint of cases given as (spacing, shape)."""
    facts = tuple(
        CaseFacts(f"case_{i:03d}", "", spacing, shape, shape, (1,), (), "")  # type: ignore[arg-type]
        for i, (spacing, shape) in enumerate(cases)
    )
    seen = intensities or (Intensity(50.0, 10.0, 49.0, 0.0, 100.0, 12.5, 90.0),) * len(channels)
    return Fingerprint(SCHEMA_VERSION, "made up", channels, labels, seen, (), share, 0, facts)


def from_nnunet(folder: Path) -> Fingerprint:
    """nnU-Net's fingerprint of a dataset as ours."""
    about: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    found: dict[str, Any] = json.loads((folder / "dataset_fingerprint.json").read_text())
    names = sorted((value, name) for name, value in about["labels"].items() if value)
    intensities = found["foreground_intensity_properties_per_channel"]
    return fingerprint(
        [(tuple(s), tuple(n)) for s, n in zip(found["spacings"], found["shapes_after_crop"])],
        LabelSet(tuple(n for _, n in names), tuple(v for v, _ in names)),
        tuple(about["channel_names"][k] for k in sorted(about["channel_names"], key=int)),
        found["median_relative_size_after_cropping"],
        tuple(Intensity(*(float(intensities[k][s]) for s in STATISTICS)) for k in sorted(intensities, key=int)),
    )


def only(plan: Plan) -> Configuration:
    (configuration,) = plan.configurations.values()
    return configuration


def msd(real_data: Callable[[str], Path], task: str) -> Path:
    folder = real_data(".").resolve().parent / "msd" / task
    if not folder.exists():
        pytest.skip(f"no {folder}")
    return folder


@pytest.mark.real
@pytest.mark.parametrize("task", TASKS)
def test_decathlon_plans_equal_those_of_nnunet(real_data: Callable[[str], Path], task: str) -> None:
    folder = msd(real_data, task)
    seen = from_nnunet(folder)
    started = time.perf_counter()
    plan = make_plan(seen, GPU)
    assert time.perf_counter() - started < 0.5
    ours, theirs = only(plan), json.loads((folder / "nnunet_plans.json").read_text())["configurations"]["3d_fullres"]
    network = theirs["architecture"]["arch_kwargs"]

    assert list(plan.configurations) == ["3d_fullres"]
    assert ours.space.spacing_mm == pytest.approx(theirs["spacing"], abs=1e-9)
    assert ours.patch.patch_size == tuple(theirs["patch_size"])
    assert ours.patch.batch_size == theirs["batch_size"]
    assert ours.network.features == tuple(network["features_per_stage"])
    assert ours.network.strides == tuple(map(tuple, network["strides"]))
    assert ours.network.kernel_sizes == tuple(map(tuple, network["kernel_sizes"]))
    assert ours.network.encoder_blocks == tuple(network["n_conv_per_stage"])
    assert ours.network.decoder_blocks == tuple(network["n_conv_per_stage_decoder"])
    scheme = {(False, "Z"): "zscore", (True, "Z"): "zscore_nonzero", (False, "C"): "ct"}
    schemes = zip(theirs["use_mask_for_norm"], theirs["normalization_schemes"])
    assert [c.normalization for c in plan.data.channels] == [scheme[masked, name[0]] for masked, name in schemes]
    assert median_shape(seen.cases, ours.space.spacing_mm) == tuple(theirs["median_image_size_in_voxels"])


@pytest.mark.real
@pytest.mark.parametrize("task", ["Task02_Heart", "Task05_Prostate", "Task07_Pancreas"])
@pytest.mark.parametrize("place", [1, 2])
def test_plans_follow_the_coarse_axis(real_data: Callable[[str], Path], task: str, place: int) -> None:
    seen = from_nnunet(msd(real_data, task))
    order = {1: (1, 0, 2), 2: (1, 2, 0)}[place]  # z becomes axis `place`, y stays before x
    _expect_reordered(seen, GPU, order)


def _expect_reordered(seen: Fingerprint, budget: Budget, order: tuple[int, ...]) -> None:
    def moved(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[a] for a in order)

    cases = [(moved(c.spacing), moved(c.shape)) for c in seen.cases]
    turned = fingerprint(cases, seen.labels, seen.channels, seen.median_relative_size, seen.intensities)
    before, after = only(make_plan(seen, budget)), only(make_plan(turned, budget))
    assert after.patch.patch_size == moved(before.patch.patch_size)
    assert after.patch.batch_size == before.patch.batch_size
    assert after.space.spacing_mm == moved(before.space.spacing_mm)
    assert after.network.strides == tuple(map(moved, before.network.strides))
    assert after.network.kernel_sizes == tuple(map(moved, before.network.kernel_sizes))


def test_spacing_is_the_median_unless_slices_are_thick_and_few() -> None:
    cases = [((s, 1.0, 1.0), (20, 100, 100)) for s in (1.5, 4.0, 5.0, 6.0, 7.0)]
    spacing, why = target_spacing(fingerprint(cases).cases)
    assert spacing == pytest.approx((1.5 + 0.4 * 2.5, 1, 1))  # tenth percentile: 0.4 of the way from the first to the second
    assert "10th percentile 2.5 mm" in why

    many_slices = [(s, (40, 100, 100)) for s, _ in cases]
    assert target_spacing(fingerprint(many_slices).cases) == ((5.0, 1.0, 1.0), "median spacing of 5 cases is (5, 1, 1) mm")

    some_thin = [((s, 1.0, 1.2), (20, 100, 100)) for s in (0.5, 0.6, 5.0, 6.0, 7.0)]
    spacing, why = target_spacing(fingerprint(some_thin).cases)
    assert spacing == pytest.approx((1.20001, 1, 1.2))
    assert "coarser in-plane spacing 1.2 mm" in why


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
    reference = REFERENCES[3]
    assert batch_size(reference, 56_000_000, (10, 10, 10), 1e9) == 20  # ten times cheaper than a sample of the reference pair
    assert batch_size(reference, 56_000_000, (10, 10, 10), 140_000) == 7  # 5 % of the voxels
    assert batch_size(reference, 560_000_000, (10, 10, 10), 1) == 2


def test_2d_where_every_case_is_one_slice() -> None:
    cases = [((1.0, 0.5, 0.5), (1, 256, 300))] * 20
    plan = make_plan(fingerprint(cases), GPU)
    assert list(plan.configurations) == ["2d"]
    chosen = only(plan)
    assert chosen.space.spacing_mm == (0.5, 0.5)
    assert chosen.patch.patch_size == (256, 320)
    assert chosen.network.features == (32, 64, 128, 256, 512, 512, 512)
    assert chosen.training.mirror_axes == (1, 2)
    one_volume = [*cases, ((1.0, 0.5, 0.5), (40, 256, 300))]
    assert list(make_plan(fingerprint(one_volume), GPU).configurations) == ["3d_fullres"]


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
    chosen = only(make_plan(fingerprint([(spacing, shape)] * 10), GPU))
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
    plan = make_plan(fingerprint([((1.0,) * 3, (32,) * 3)] * 3, channels=(channel,), share=share), GPU)
    (chosen,) = plan.data.channels
    assert (chosen.name, chosen.normalization) == (channel, normalization)
    assert (chosen.mean, chosen.std, chosen.percentile_00_5, chosen.percentile_99_5) == (50, 10, 12.5, 90)
    assert reason in plan.why["data.channels[0].normalization"]


@pytest.mark.parametrize(
    ("names", "ndim", "axes", "reason"),
    [
        (("liver",), 3, (2,), "x is mirrored: left and right look alike; y and z are not mirrored: in canonical orientation"),
        (("left kidney", "right kidney"), 3, (2,), "'left kidney' and 'right kidney' swap names"),
        (("heart", "left atrium"), 3, (), "x is not mirrored: the other side of 'left atrium' is no structure"),
        (("Anterior", "Posterior"), 3, (2,), "never upside down, 'Anterior' is named after its place"),
        (("nucleus",), 2, (1, 2), "y is mirrored"),
        (("upper jaw",), 2, (2,), "y is not mirrored: 'upper jaw' is named after its place"),
        (("eye_L",), 2, (1,), "x is not mirrored: the other side of 'eye_L'"),
    ],
)
def test_mirrored_axes(names: tuple[str, ...], ndim: int, axes: tuple[int, ...], reason: str) -> None:
    labels = LabelSet(names, tuple(range(1, len(names) + 1)))
    found, why = mirror_axes(labels, ndim, "cuda")
    assert found == axes
    assert reason in why
    on_cpu, why = mirror_axes(labels, ndim, "cpu")
    assert on_cpu == (() if ndim == 3 else axes)
    assert ndim == 2 or why.startswith("3D cases are not mirrored on a CPU")


def test_cpu_is_narrower_and_says_so() -> None:
    chosen = only(make_plan(fingerprint([((1.0,) * 3, (36, 50, 35))] * 208), CPU))
    assert chosen.patch.patch_size == (36, 52, 36)  # 40x56x40 holds 1.42 times the voxels of the median case
    assert chosen.network.features == (16, 32, 64)
    assert chosen.network.decoder_blocks == (1, 1)
    assert "half of nnU-Net's 32" in chosen.why["network.features"]
    assert "lowered" in chosen.why["patch.batch_size"]
    assert "one stage less on a CPU: a patch 1.3 times as large would be mostly padding" in chosen.why["patch.patch_size"]
    assert _step_gmacs(chosen) <= CPU_STEP_GMACS


def test_cpu_loses_batch_before_patch() -> None:
    small = only(make_plan(fingerprint([((1.0,) * 3, (48, 64, 48))] * 500), CPU))
    assert small.patch.patch_size == (48, 64, 48)
    assert 2 <= small.patch.batch_size < 25
    assert "CPU" not in small.why["patch.patch_size"]
    large = only(make_plan(fingerprint([((1.0,) * 3, (300, 300, 300))] * 500), CPU))
    assert large.patch.batch_size == 2
    assert max(large.patch.patch_size) < 128
    assert "shrunk on a CPU towards 100·10⁹ multiply-accumulates a step" in large.why["patch.patch_size"]
    assert CPU_STEP_GMACS < _step_gmacs(large) <= CPU_PATCH_GMACS
    tiny = only(make_plan(fingerprint([((1.0,) * 3, (16, 16, 16))] * 3), CPU))
    assert tiny.why["patch.batch_size"].endswith("multiply-accumulates a step on a CPU")


def test_cpu_limit_that_no_patch_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.planner.processor.CPU_PATCH_GMACS", 1e-6)
    chosen = only(make_plan(fingerprint([((1.0,) * 3, (64, 64, 64))] * 9), CPU))
    assert (chosen.patch.batch_size, len(chosen.network.strides)) == (2, 2)


def _step_gmacs(chosen: Configuration, n_classes: int = 2) -> float:
    return 3e-9 * chosen.patch.batch_size * multiply_accumulates(chosen.network, chosen.patch.patch_size, 1, n_classes)


def test_budget() -> None:
    with pytest.raises(UsageError, match=r"no plan can be made for this device; found: tpu; allowed: cuda, cpu"):
        Budget("tpu", 8)
    for memory in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match=r"a plan needs some memory.*allowed: more than 0 GB"):
            Budget("cuda", memory)
    seen = fingerprint([((1.0,) * 3, (64, 64, 64))] * 5)
    with pytest.raises(ResourceError, match=r"even a patch of .* does not fit the memory; found: 1e-06 GB; allowed: at least"):
        make_plan(seen, Budget("cuda", 1e-6))


def test_every_value_has_its_reason() -> None:
    seen = fingerprint([((1.0,) * 3, (64, 64, 64))] * 5, channels=("T1", "T2"))
    for budget in (GPU, CPU):
        plan = make_plan(seen, budget)
        chosen = only(plan)
        keys = {f"{g}.{k}" for g in ("space", "patch", "network", "training", "inference") for k in vars(getattr(chosen, g))}
        assert set(chosen.why) == keys | {"postprocess"}
        assert set(plan.why) == {"data.channels[0].normalization", "data.channels[1].normalization"}
        assert plan.origin.fingerprint == seen.hash
        assert (plan.origin.device, plan.origin.memory_gb) == (budget.device, 8)


axis_spacing = st.sampled_from((0.3, 0.8, 1.0, 1.7, 4.0, 9.0))
case = st.tuples(st.tuples(*[axis_spacing] * 3), st.tuples(*[st.integers(1, 400)] * 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(case, min_size=1, max_size=4), st.sampled_from((2.0, 8.0, 24.0)), st.sampled_from(("cpu", "cuda")))
def test_plans_are_valid_and_within_budget(cases: list[Any], memory: float, device: str) -> None:
    plan = make_plan(fingerprint(cases), Budget(device, memory))
    assert parse_plan(to_json(plan), "plan.json") == plan
    chosen = only(plan)
    reference = REFERENCES[chosen.ndim].scaled(memory)
    elements = conv_elements(chosen.network, chosen.patch.patch_size, 1, 2)
    assert elements <= reference.elements_at_smallest_batch
    assert chosen.patch.batch_size >= 2
    for axis, n in enumerate(chosen.patch.patch_size):
        divisor = prod(row[axis] for row in chosen.network.strides)
        assert divisor == 1 or n // divisor >= 4
    if device == "cpu":
        assert _step_gmacs(chosen) <= (CPU_STEP_GMACS if chosen.patch.batch_size > 2 else CPU_PATCH_GMACS)


@settings(max_examples=25, deadline=None)
@given(
    st.permutations((0, 1, 2)),
    st.permutations((31, 90, 150, 260)),
    st.sampled_from((0.6, 1.0, 2.1, 5.0)),
    st.sampled_from((GPU, CPU, replace(GPU, memory_gb=3.0))),
)
def test_plans_follow_an_axis_permutation(order: list[int], shape: list[int], coarse: float, budget: Budget) -> None:
    seen = fingerprint([((coarse, 1.0, 0.9), tuple(shape[:3]))] * 10)
    _expect_reordered(seen, budget, tuple(order))
