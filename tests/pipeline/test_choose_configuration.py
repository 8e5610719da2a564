from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.ladders import with_ladder
from helpers.tiny import DATASET_NAME, Tiny, TinyRuns

from autoseg.errors import UsageError
from autoseg.pipeline import training as training_module
from autoseg.pipeline.ladder import ChosenConfiguration, abandon, choose_configuration
from autoseg.pipeline.training import train_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Plan, load_plan, save_plan
from autoseg.runs import budget as budget_module
from autoseg.runs.abandoned import Abandoned, load_abandoned, save_abandoned
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions

PLANS = Path(__file__).parents[2] / "plans"
NOTE = Abandoned(600.0, "cpu", 9.0, "a step takes 9 s where the plan says 0.3", "3d_x2")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(PLANS / "mouse_brain.plan.json")


def chosen(
    plan: Plan, root: Path, seconds: float | None, *, configuration: str | None = None, restart: bool = False
) -> ChosenConfiguration:
    options = TrainingOptions(None if seconds is None else RunBudget(seconds=seconds))
    return choose_configuration(plan, Workspace(root).runs(plan.name), configuration, options, folds=("0",), restart=restart)


def test_the_time_chooses_where_nobody_else_does(plan: Plan, tmp_path: Path) -> None:
    assert chosen(plan, tmp_path, 60.0).name == plan.ladder[-1].configuration
    assert chosen(plan, tmp_path, 60.0, configuration="auto").name == plan.ladder[-1].configuration
    assert chosen(plan, tmp_path, 60.0, configuration="2d").name == "2d"
    assert chosen(plan, tmp_path, None).name == plan.default_configuration
    with pytest.raises(UsageError, match="the plan has no configuration '3d_x9'"):
        chosen(plan, tmp_path, 60.0, configuration="3d_x9")


def test_a_plan_without_a_ladder_has_its_default(plan: Plan, tmp_path: Path) -> None:
    assert chosen(replace(plan, ladder=()), tmp_path, 60.0).name == plan.default_configuration


def test_a_grid_that_was_edited_by_hand_is_trained(plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "autoseg")
    name = plan.ladder[1].configuration
    c = plan.configurations[name]
    edited = replace(c, space=replace(c.space, spacing_mm=(0.2, 0.2, 0.2)))
    by_hand = replace(plan, configurations={**plan.configurations, name: edited})
    for seconds in (None, 60.0, 36000.0):
        assert chosen(by_hand, tmp_path, seconds).name == name
    assert f"the grid of {name} was edited by hand: it is trained, whatever the time" in caplog.messages


def test_a_rung_that_was_given_up_is_not_tried_again_with_the_same_time(plan: Plan, tmp_path: Path) -> None:
    first = chosen(plan, tmp_path, 600.0).name
    run = Workspace(tmp_path).run(plan.name, first, "3")  # whatever the fold
    (run / "validation").mkdir(parents=True)
    abandon(run, NOTE)
    assert [path.name for path in run.iterdir()] == ["abandoned.json"]
    assert load_abandoned(run) == NOTE
    again = chosen(plan, tmp_path, 600.0)
    assert again == ChosenConfiguration("3d_x2", by_time=True, instead_of=f"{first} was given up: {NOTE.reason}")
    assert chosen(plan, tmp_path, 601.0).name == first
    save_abandoned(run, replace(NOTE, instead="3d_x7"))
    assert chosen(plan, tmp_path, 600.0).name == first  # the plan has changed since
    save_abandoned(run, replace(NOTE, instead=plan.ladder[0].configuration))
    assert chosen(plan, tmp_path, 600.0).name == plan.ladder[0].configuration  # a faster machine
    save_abandoned(run, replace(NOTE, device="cuda"))
    assert chosen(plan, tmp_path, 600.0).name == first
    run.rename(run.with_name("fold_3.previous"))
    save_abandoned(run.with_name("fold_3.previous"), NOTE)
    assert chosen(plan, tmp_path, 600.0).name == first
    save_abandoned(run, NOTE)
    assert chosen(plan, tmp_path, 600.0, restart=True).name == first


def test_a_number_of_epochs_asks_no_ladder(plan: Plan, tmp_path: Path) -> None:
    timed = {name: replace(c, training=replace(c.training, time_s=600.0)) for name, c in plan.configurations.items()}
    save_abandoned(Workspace(tmp_path).run(plan.name, plan.default_configuration, "0"), NOTE)
    epochs = TrainingOptions(RunBudget(epochs=5))
    found = choose_configuration(
        replace(plan, configurations=timed), Workspace(tmp_path).runs(plan.name), None, epochs, folds=("0",), restart=False
    )
    assert found == ChosenConfiguration(plan.default_configuration)


def test_the_default_that_a_user_sets_is_trained_in_the_time_of_the_plan(plan: Plan, tmp_path: Path) -> None:
    timed = {name: replace(c, training=replace(c.training, time_s=60.0)) for name, c in plan.configurations.items()}
    own = replace(plan, configurations=timed, default_configuration="3d_fullres")
    assert chosen(own, tmp_path, 60.0).name == "3d_fullres"
    assert chosen(own, tmp_path, None).name == "3d_fullres"
    assert chosen(own, tmp_path, 61.0).name == plan.ladder[-1].configuration


def test_what_has_begun_goes_on_without_a_budget(plan: Plan, tmp_path: Path, tiny_runs: TinyRuns) -> None:
    """An interrupted run is continued, a finished one extended, whatever rung their time has chosen."""
    name = plan.ladder[-1].configuration
    assert name != plan.default_configuration
    run = Workspace(tmp_path).run(plan.name, name, "0")
    shutil.copytree(tiny_runs.runs[0], run)
    extending = TrainingOptions(RunBudget(epochs=1), extend=True)

    def found(options: TrainingOptions) -> str:
        return choose_configuration(plan, Workspace(tmp_path).runs(plan.name), None, options, folds=("0",), restart=False).name

    assert found(extending) == name
    assert found(TrainingOptions()) == plan.default_configuration  # finished: the plan's own is trained
    (run / "run.json").unlink()
    assert found(TrainingOptions()) == name
    assert found(extending) == plan.default_configuration


def test_notes_in_a_circle_come_to_an_end(tmp_path: Path, plan: Plan) -> None:
    """Two runs that were given up for each other, and killed before the last one began."""
    name, other = chosen(plan, tmp_path, 600.0).name, plan.ladder[-1].configuration
    assert name != other
    for a, b in ((name, other), (other, name)):
        run = Workspace(tmp_path).run(plan.name, a, "0")
        run.mkdir(parents=True)
        save_abandoned(run, Abandoned(600.0, "cpu", 1.0, "a step takes another time", b))
    found = chosen(plan, tmp_path, 600.0)
    assert found.name == other
    assert found.instead_of == f"{name} was given up: a step takes another time"


SLOWER = {"step_s": 1e-5, "faster": 100.0, "fine_cases": 0.02, "coarse_ceiling": 0.9}
FASTER = {"step_s": 2.0, "faster": 4.0, "fine_cases": 2.0, "coarse_ceiling": 0.5}


@pytest.mark.parametrize(
    ("ladder", "given_up", "trained"),
    [(SLOWER, "3d_fullres", "3d_x2"), (FASTER, "3d_x2", "3d_fullres")],
    ids=["slower than planned", "faster than planned"],
)
def test_a_machine_of_another_speed_trains_another_rung(
    ladder: dict[str, float],
    given_up: str,
    trained: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The whole way: the first steps are measured, the run is given up, the cases are prepared anew, the record says why."""
    root = tmp_path / "work"
    shutil.copytree(tiny.workspace.root, root, ignore=shutil.ignore_patterns("runs"))
    workspace = Workspace(root)
    plan = with_ladder(tiny.plan, **ladder)
    save_plan(plan, workspace.dataset_folder(DATASET_NAME) / "plan.json")
    for module in (budget_module, training_module):
        monkeypatch.setattr(module, "LEAST_TIME_S", 4.0)
    options = TrainingOptions(RunBudget(seconds=6), threads=0)
    report = train_dataset(tiny.dataset, workspace, options=options, device="cpu")
    assert report is not None
    assert report.record.configuration == trained
    assert report.model == workspace.run(DATASET_NAME, trained, "0")
    assert report.record.instead_of is not None
    assert report.record.instead_of.startswith(f"{given_up} was given up: a step takes")
    assert any(f"{trained} is trained instead of {given_up}" in message for message in caplog.messages)
    assert load_abandoned(workspace.run(DATASET_NAME, given_up, "0")) is not None

    again = train_dataset(tiny.dataset, workspace, options=options, device="cpu")
    assert again is not None
    assert again.record == report.record
    assert any("is already trained" in message for message in caplog.messages)


def test_too_little_time_is_said_with_what_would_do(plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slow = {
        name: replace(c, footprint=replace(c.footprint, step_s=60.0) if c.footprint else None)
        for name, c in plan.configurations.items()
    }
    chosen(replace(plan, configurations=slow), tmp_path, 60.0)
    (note,) = [message for message in caplog.messages if "too little" in message]
    assert note.startswith("note: 1 min 00 s is too little for any grid: expect Dice 0.")
    assert note.endswith("is the least that is useful")
    caplog.clear()
    chosen(plan, tmp_path, 36000.0)
    assert not caplog.messages


def test_structures_that_a_grid_loses_are_named_before_training(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    *finer, coarsest = plan.ladder
    losing = replace(plan, ladder=(*finer, replace(coarsest, lost=("vein", "duct"))))
    name = chosen(losing, tmp_path, 30.0).name
    assert name == coarsest.configuration
    (note,) = [message for message in caplog.messages if "too coarse" in message]
    assert f"the grid of {name} is too coarse for 'vein', 'duct'; from about " in note
    assert f"a grid that keeps them is chosen, or use -c {plan.ladder[0].configuration}" in note
