"""Edits by hand: found, carried to a new plan, and refused where they contradict it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_plan import FINE, FLAT, PLAN

from autoseg.errors import PlanError
from autoseg.plan import Footprint, Plan
from autoseg.plan.edits import Edit, apply_edits, find_edits


def fine(plan: Plan, **groups: object) -> Plan:
    """With other groups of 3d_fullres."""
    changed = replace(plan.configurations["3d_fullres"], **groups)  # type: ignore[arg-type]
    return replace(plan, configurations={**plan.configurations, "3d_fullres": changed})


EDITED = fine(PLAN, patch=replace(FINE.patch, batch_size=3), training=replace(FINE.training, epochs=50))
EDITED = replace(EDITED, data=replace(PLAN.data, channels=(replace(PLAN.data.channels[0], normalization="zscore"),)))
EDITS = (
    Edit(("data", "channels", "0", "normalization"), "ct", "zscore"),
    Edit(("configurations", "3d_fullres", "patch", "batch_size"), 2, 3),
    Edit(("configurations", "3d_fullres", "training", "epochs"), 1000, 50),
)


def test_edits_are_found_and_described() -> None:
    assert find_edits(PLAN, PLAN) == ()
    assert find_edits(PLAN, EDITED) == EDITS
    assert str(EDITS[1]) == "configurations.3d_fullres.patch.batch_size: 3 instead of 2"


def test_reasons_estimates_and_origin_are_no_decisions() -> None:
    other = fine(PLAN, why={}, footprint=Footprint(1, 1, 1, 1))
    assert find_edits(PLAN, replace(other, why={}, name="x", origin=replace(PLAN.origin, memory_gb=80.0))) == ()


def test_edits_are_carried_to_a_new_plan() -> None:
    new = fine(PLAN, patch=replace(FINE.patch, patch_size=(16, 32, 64), batch_size=4), why={"patch.batch_size": "memory"})
    merged, lost = apply_edits(new, EDITS, "plan.json")
    assert lost == ()
    chosen = merged.configurations["3d_fullres"]
    assert (chosen.patch.patch_size, chosen.patch.batch_size, chosen.training.epochs) == ((16, 32, 64), 3, 50)
    assert chosen.footprint is None  # which was that of another batch
    assert merged.data.channels[0].normalization == "zscore"
    assert chosen.why["patch.batch_size"] == "set by hand; planned before: 2; planned now: memory"
    assert chosen.why["training.epochs"] == "set by hand; planned before: 1000"
    assert merged.why["data.channels[0].normalization"] == 'set by hand; planned before: "ct"'
    assert find_edits(new, merged) == tuple(replace(e, planned=4 if e.edited == 3 else e.planned) for e in EDITS)


def test_added_and_removed_configurations_are_edits() -> None:
    own = replace(PLAN, configurations={"3d_fullres": FINE, "mine": replace(FINE, postprocess=())})
    added, removed = find_edits(PLAN, own)
    assert (str(added), str(removed)) == ("configurations.mine added", "configurations.2d removed")
    merged, lost = apply_edits(PLAN, (added, removed), "plan.json")
    assert (merged, lost) == (own, ())
    assert apply_edits(own, (removed,), "plan.json") == (own, ())  # gone already


def test_edits_that_the_new_plan_has_no_key_for_are_returned() -> None:
    flat = Edit(("configurations", "2d", "patch", "batch_size"), 12, 6)
    second_channel = Edit(("data", "channels", "1", "normalization"), "ct", "zscore")
    only_3d = replace(PLAN, configurations={"3d_fullres": FINE})
    merged, lost = apply_edits(only_3d, (flat, second_channel), "plan.json")
    assert (merged, lost) == (only_3d, (flat, second_channel))


def test_an_optional_value_may_be_edited() -> None:
    timed = replace(
        PLAN, configurations={**PLAN.configurations, "2d": replace(FLAT, training=replace(FLAT.training, time_s=None))}
    )
    assert apply_edits(PLAN, EDITS[2:], "plan.json")[0].configurations["3d_fullres"].footprint == FINE.footprint
    edits = find_edits(PLAN, timed)
    assert edits == (Edit(("configurations", "2d", "training", "time_s"), 600.0, None),)
    assert apply_edits(PLAN, edits, "plan.json")[0].configurations["2d"].training.time_s is None


def test_contradictory_edits_are_refused() -> None:
    edit = Edit(("configurations", "3d_fullres", "patch", "patch_size"), [16, 32, 32], [20, 32, 32])
    deeper = fine(PLAN, network=replace(FINE.network, strides=((1, 1, 1), (4, 2, 2), (2, 2, 2))))
    with pytest.raises(
        PlanError,
        match=r"edits by hand contradict the new plan: 'configurations\.3d_fullres\.patch\.patch_size\[0\]' cannot be used.*"
        r"found: 20, with the edits configurations\.3d_fullres\.patch\.patch_size: \[20, 32, 32\] instead of \[16, 32, 32\]; "
        r"allowed: a multiple of 8.*fix: change or revert these edits",
    ):
        apply_edits(deeper, (edit,), "plan.json")
