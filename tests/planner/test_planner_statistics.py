"""Rules that follow tails, lateral positions and prevalence, and plans where a fingerprint holds none of these."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint, Tails
from autoseg.fingerprint.dataset import Fingerprint, Intensity, StructureStatistics
from autoseg.imaging.geometry import Triple
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS
from autoseg.plan import Plan
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.mirroring import mirror_axes
from autoseg.planner.sampling import FOREGROUND_FRACTION, LEAST_SHOWN, MOST_FOREGROUND, Sampling, plan_sampling
from autoseg.planner.wording import percent

KIDNEYS = LabelSet(("left kidney", "right kidney"), (1, 2))
SIZE: Triple = (64, 64, 64)


def make_fingerprint(
    n_cases: int = 20,
    tails: Tails | None = None,
    labels: LabelSet = LabelSet(("liver",), (1,)),  # noqa: B008
    structures: dict[str, tuple[int, float]] | None = None,
    share: float = 1.0,
    channel: str = "MR",
) -> Fingerprint:
    """A fingerprint of alike cases; structures as name: (cases, mean voxels)."""
    case = CaseFingerprint("", "", (1.0, 1.0, 1.0), SIZE, SIZE, (), (), (), (tails,) if tails else (), "")
    return Fingerprint(
        SCHEMA_VERSION,
        "made up",
        (channel,),
        labels,
        NO_LANDMARKS,
        (Intensity(50.0, 10.0, 49.0, 0.0, 100.0, 12.5, 90.0),),
        tuple(StructureStatistics(name, n, voxels, voxels) for name, (n, voxels) in (structures or {}).items()),
        None,
        share,
        0,
        (),
        tuple(replace(case, name=f"c{i:02d}") for i in range(n_cases)),
    )


def normalization(plan: Plan) -> tuple[str, str]:
    return plan.data.channels[0].normalization, plan.why["data.channels[0].normalization"]


@pytest.mark.parametrize(
    ("tails", "share", "scheme", "reason"),
    [
        (Tails(0.3, 0.3, 0.01), 1.0, "zscore_robust", "would keep 30 % of its standard deviation (median), less than 80 %"),
        (Tails(0.79, 0.99, 0.0), 1.0, "zscore_robust", "a few voxels dominate"),
        (Tails(0.8, 0.1, 0.0), 1.0, "zscore", "would keep 80 % of its standard deviation (median): no outliers dominate"),
        (Tails(0.99, 0.5, 0.0), 0.5, "zscore_nonzero_robust", "would keep 50 %"),
        (Tails(0.5, 0.99, 0.0), 0.5, "zscore_nonzero", "would keep 99 %"),
        (Tails(0.3, 0.3, 0.6), 1.0, "zscore", "but up to 60 % of a structure would be cut"),
    ],
)
def test_robust_where_a_few_voxels_dominate(tails: Tails, share: float, scheme: str, reason: str) -> None:
    chosen, why = normalization(make_plan(make_fingerprint(tails=tails, share=share), Budget("cuda", 8)))
    assert chosen == scheme
    assert reason in why


def test_the_median_case_decides() -> None:
    few = make_fingerprint(21, Tails(0.99, 0.99, 0.0))
    spikes = [replace(c, tails=(Tails(0.1, 0.1, 0.0),)) for c in few.cases]
    assert normalization(make_plan(replace(few, cases=(*spikes[:10], *few.cases[10:])), Budget("cuda", 8)))[0] == "zscore"
    assert normalization(make_plan(replace(few, cases=(*spikes[:11], *few.cases[11:])), Budget("cuda", 8)))[0] == "zscore_robust"


def test_ct_and_no_normalization_ignore_tails() -> None:
    spiky = Tails(0.1, 0.1, 0.0)
    assert normalization(make_plan(make_fingerprint(tails=spiky, channel="CT"), Budget("cuda", 8)))[0] == "ct"
    assert normalization(make_plan(make_fingerprint(tails=spiky, channel="noNorm"), Budget("cuda", 8)))[0] == "none"


def placed(*leftwards: bool) -> tuple[CaseFingerprint, ...]:
    base = make_fingerprint(1).cases[0]
    return tuple(
        replace(base, name=f"c{i}", lateral_positions=(0.7, 0.3) if left else (0.3, 0.7)) for i, left in enumerate(leftwards)
    )


def test_mirrored_where_geometry_confirms_the_names() -> None:
    axes, why = mirror_axes(KIDNEYS, placed(*[True] * 19, False), ndim=3, device="cuda")
    assert axes == (2,)
    assert "'left kidney' and 'right kidney' swap names, and lie alike in 19 of the 20 cases that show both sides" in why
    assert mirror_axes(KIDNEYS, placed(*[False] * 8), ndim=3, device="cuda")[0] == (2,)  # all alike will do


def test_not_mirrored_where_sides_are_mixed() -> None:
    for ndim, axes in ((3, ()), (2, (1,))):
        found, why = mirror_axes(KIDNEYS, placed(*[True] * 8, False), ndim=ndim, device="cuda")
        assert found == axes
        assert "x is not mirrored: in 1 of 9 cases left and right lie the other way round than in the rest" in why
    assert mirror_axes(KIDNEYS, placed(*[True] * 9, False), ndim=3, device="cuda")[0] == (2,)  # 10 % are no more than 10 %


def test_not_mirrored_where_a_side_is_never_seen() -> None:
    """A name of one side that stands for both."""
    base = make_fingerprint(1).cases[0]
    for voxels, here, there in (((9, 0), "left", "right"), ((0, 9), "right", "left")):
        case = replace(base, voxels=voxels, lateral_positions=tuple(0.5 if n else None for n in voxels))
        axes, why = mirror_axes(KIDNEYS, (case,) * 3, ndim=3, device="cuda")
        assert axes == ()
        assert f"x is not mirrored: '{there} kidney', the other side of '{here} kidney', occurs in no case" in why
    assert mirror_axes(KIDNEYS, (replace(base, voxels=(0, 0), lateral_positions=(None, None)),), ndim=3, device="cuda")[0] == (2,)


def test_the_mirroring_reason_counts_pairs() -> None:
    labels = LabelSet(("left ear", "right ear", "left eye", "right eye"), (1, 2, 3, 4))
    assert (
        "x is mirrored, 2 pairs such as 'left ear' and 'right ear' swap names:"
        in mirror_axes(labels, (), ndim=3, device="cuda")[1]
    )
    teeth = LabelSet(("tooth 11", "tooth 21", "tooth 31"), (1, 2, 3))
    assert mirror_axes(teeth, (), ndim=3, device="cuda")[1].startswith("x is not mirrored: the other side of 'tooth 31'")


def sampled(structures: dict[str, tuple[int, float]], patch: int = 32, n_cases: int = 20) -> Sampling:
    return plan_sampling(make_fingerprint(n_cases, structures=structures), (patch,) * 3, (1.0,) * 3, SIZE)


def test_rare_structures_are_drawn_first() -> None:
    found = sampled({"liver": (20, 9000.0), "tumour": (3, 100.0), "none": (0, 0.0)})
    assert found.sampling == "structures"
    assert "'tumour' occurs in 3 of 20 cases: a structure is drawn first" in found.sampling_reason
    found = sampled({"liver": (20, 9000.0), "tumour": (10, 100.0)})
    assert found.sampling == "cases"
    assert "no structure is rarer than 'tumour', in 10 of 20 cases" in found.sampling_reason
    assert (
        sampled({"liver": (20, 9.0)}).sampling_reason == "every structure that occurs is in all 20 cases: cases are drawn alike"
    )


def test_the_foreground_fraction_by_hand() -> None:
    # a cube of 8 voxels: (32 + 8 - 1) / 64 along each axis
    found = sampled({"node": (20, 512.0)})
    assert found.fraction == FOREGROUND_FRACTION
    assert round(100 * (39 / 64) ** 3) == 23
    assert "share of nnU-Net; 23 % of the patches anywhere are expected to show 'node'" in found.fraction_reason
    assert "100 % of those placed on a structure are placed on it" in found.fraction_reason
    # 25 structures of one voxel, patches of an eighth along each axis: 0.2 % and 4 %, so at most 2.1 % of all patches
    many = sampled({f"s{i}": (20, 1.0) for i in range(25)}, patch=8)
    assert many.fraction == MOST_FOREGROUND
    assert "so that 2.1 % of all patches show it" in many.fraction_reason
    # ten of them: 0.2 % and 10 %, 5 % needs 0.4901 of the patches, rounded up
    ten = sampled({f"s{i}": (20, 1.0) for i in range(10)}, patch=8)
    assert ten.fraction == 0.5
    # in three of twenty cases: structures are drawn first, so the rare one is placed as often as the others
    rare = sampled({**{f"s{i}": (20, 1.0) for i in range(9)}, "rare": (3, 1.0)}, patch=8)
    assert (rare.sampling, rare.fraction) == ("structures", 0.5)
    assert "'rare', the structure seen least" in rare.fraction_reason


def test_patches_that_show_all_need_no_more() -> None:
    assert sampled({f"s{i}": (20, 1.0) for i in range(100)}, patch=64).fraction == FOREGROUND_FRACTION
    flat = plan_sampling(make_fingerprint(structures={"a": (20, 4.0)}), (64, 64), (1.0, 1.0), (64, 64))
    assert flat.fraction == FOREGROUND_FRACTION


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.floats(1, 50_000)), min_size=1, max_size=60),
    st.integers(1, 100),
    st.tuples(*[st.floats(0.3, 5)] * 3),
)
def test_the_foreground_fraction_stays_within_its_bounds(
    structures: list[tuple[int, float]], patch: int, spacing: tuple[float, float, float]
) -> None:
    named = {f"s{i}": s for i, s in enumerate(structures)}
    found = plan_sampling(make_fingerprint(structures=named), (patch,) * 3, spacing, SIZE)
    assert FOREGROUND_FRACTION <= found.fraction <= MOST_FOREGROUND
    assert (found.sampling == "structures") == (min(n for n, _ in structures) < 10)
    assert LEAST_SHOWN < FOREGROUND_FRACTION


def test_a_fingerprint_of_nnunet_is_planned_as_nnunet_does() -> None:
    plan = make_plan(make_fingerprint(labels=KIDNEYS), Budget("cuda", 8))
    chosen, why = normalization(plan)
    configuration = plan.configurations["3d_fullres"]
    assert (chosen, configuration.patch.sampling, configuration.patch.foreground_fraction) == ("zscore", "cases", 0.33)
    assert "standard deviation;" in why
    assert "percentiles" not in why
    assert configuration.training.mirror_axes == (2,)
    assert "swap names: left and right" in configuration.why["training.mirror_axes"]


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.9951, "100 %"), (0.28, "28 %"), (0.0996, "10 %"), (0.0042, "0.42 %"), (0.0, "0 %")]
)
def test_percentages_are_short_and_plain(share: float, text: str) -> None:
    assert percent(share) == text
