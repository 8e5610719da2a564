from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.limits import HANGS

from autoseg.fingerprint.dataset import Fingerprint, load_fingerprint
from autoseg.fingerprint.grid_ceilings import GridCeiling
from autoseg.planner.make_plan import Budget, make_plan

PLANS = Path(__file__).parents[2] / "plans"
CPU = Budget("cpu", 8, gmacs_per_s=100.0)
MINUTE = replace(CPU, time_s=60.0)


def fingerprint(name: str = "brats2013") -> Fingerprint:
    return load_fingerprint(PLANS / f"{name}.fingerprint.json")


def test_with_little_time_cases_that_fit_no_patch_get_a_coarse_grid() -> None:
    plan = make_plan(fingerprint(), MINUTE)
    default = plan.configurations[plan.default_configuration]
    fine = plan.configurations["3d_fullres"]
    assert plan.default_configuration.startswith("3d_x")
    assert min(default.space.spacing_mm) >= 2 * min(fine.space.spacing_mm)
    assert plan.why["default_configuration"].startswith("in 60 s a grid ")
    assert "times as coarse as (1, 1, 1) mm" in default.why["space.spacing_mm"]


def test_more_time_never_gives_a_coarser_grid() -> None:
    spacings = []
    for seconds in (20, 60, 180, 600, 1800, 7200, 86400):
        plan = make_plan(fingerprint(), replace(CPU, time_s=float(seconds)))
        spacings.append(min(plan.configurations[plan.default_configuration].space.spacing_mm))
    assert spacings == sorted(spacings, reverse=True)
    assert spacings[0] > spacings[-1]


def test_the_finest_rung_is_the_configuration_of_always() -> None:
    """With and without ceilings it is the same to the last value."""
    with_ladder, without = make_plan(fingerprint(), MINUTE), make_plan(replace(fingerprint(), ceilings=()), MINUTE)
    assert with_ladder.ladder[0].configuration == "3d_fullres"
    assert with_ladder.configurations["3d_fullres"] == without.configurations["3d_fullres"]
    assert without.ladder == ()
    assert without.default_configuration in ("3d_fullres", "3d_lowres")


def test_structures_that_vanish_keep_the_grid_fine() -> None:
    """Where even a slightly coarser grid loses all, no time is so short that it pays."""
    lost = tuple(GridCeiling(c.factor, tuple(0.02 for _ in c.dice)) for c in fingerprint().ceilings)
    plan = make_plan(replace(fingerprint(), ceilings=lost), MINUTE)
    assert not plan.default_configuration.startswith("3d_x")


def test_small_cases_that_fit_a_patch_have_no_ladder() -> None:
    assert make_plan(fingerprint("Task04_Hippocampus"), CPU).ladder == ()


def test_on_a_gpu_only_a_limit_of_time_makes_a_ladder() -> None:
    gpu = Budget("cuda", 8, gmacs_per_s=1000.0)
    assert make_plan(fingerprint("mouse_brain"), gpu).ladder == ()
    assert make_plan(fingerprint("mouse_brain"), gpu).default_configuration == "3d_fullres"
    assert make_plan(fingerprint("mouse_brain"), replace(gpu, time_s=20.0)).ladder


@pytest.mark.parametrize("name", ["brats2013", "mouse_brain", "nuclei"])
@pytest.mark.parametrize("seconds", [None, 60.0, 3600.0])
def test_rungs_are_complete_configurations_within_the_budget(name: str, seconds: float | None) -> None:
    plan = make_plan(fingerprint(name), replace(CPU, time_s=seconds))
    factors = [rung.factor for rung in plan.ladder]
    assert factors == sorted(factors)
    for rung in plan.ladder:
        c = plan.configurations[rung.configuration]
        assert c.space.spacing_mm == rung.spacing_mm
        assert c.training.time_s == seconds
        assert c.footprint is not None
        assert c.footprint.training_gb <= CPU.memory_gb
        assert 0 < rung.covered <= 1


def test_planning_takes_a_moment() -> None:
    start_time = time.perf_counter()
    make_plan(fingerprint(), CPU)
    assert time.perf_counter() - start_time < HANGS  # 60 ms on a quiet machine
