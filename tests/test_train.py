"""Training: what it writes, that it skips and resumes, and that it stops on bad data and foreign plans."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Tiny, TinyRuns
from safetensors.torch import load_file

from autoseg import checkpoint as checkpoint_module
from autoseg import interim as interim_module
from autoseg import rescue as rescue_module
from autoseg import running as running_module
from autoseg import step as step_module
from autoseg import train as train_module
from autoseg.checkpoint import Beginning, load_state
from autoseg.dataset import open_dataset
from autoseg.device import Device
from autoseg.errors import DataError, DiskError, PlanError, UsageError
from autoseg.history import Epoch
from autoseg.io import read_label_map
from autoseg.losses import LOSSES, deep_supervision
from autoseg.metrics import dice_per_structure
from autoseg.model import Model, fresh_network, load_model
from autoseg.placement import Prepared
from autoseg.plan import OPTIMIZERS, load_plan
from autoseg.running import Running
from autoseg.runs import folds_of, load_run
from autoseg.sampling import PatchSampler
from autoseg.schedule import Budget, extension_factor, learning_rate_factor
from autoseg.store import StoredCase, write_case
from autoseg.task import TrainTask, train_task
from autoseg.train import train, train_folds
from autoseg.workspace import Workspace

EPOCHS = Budget(epochs=2)


def history(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def same_outcome(a: Path, b: Path) -> None:
    """Equal weights (trained, averaged and the optimizer's), curves and scores; only the clock may differ."""
    first, second = load_file(a / "last.safetensors"), load_file(b / "last.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for x, y in zip(history(a), history(b), strict=True):
        for key in ("epoch", "step", "learning_rate", "train_loss", "case_dice"):
            assert x[key] == y[key]
    one, two = load_run(a), load_run(b)
    assert replace(one, seconds=0) == replace(two, seconds=0)


def test_a_run_leaves_what_it_promises(tiny: Tiny, tiny_runs: TinyRuns) -> None:
    run, record = tiny_runs.runs[0], tiny_runs.records[0]
    validation = tiny.task(run).validation
    assert {p.name for p in run.iterdir()} == {
        "last.safetensors",
        "best.safetensors",
        "metrics.csv",
        "progress.png",
        "plan.json",
        "run.json",
        "postprocess.json",
        "validation",
    }
    assert {p.name for p in (run / "validation").iterdir()} == {f"{c.name}.nii.gz" for c in validation}
    assert load_plan(run / "plan.json") == tiny.plan
    assert load_run(run) == record
    assert (record.dataset, record.configuration, record.fold) == ("Dataset001_Phantom", "3d_fullres", "0")
    assert (record.finished, record.steps, record.validated_on) == (True, 6, f"{len(validation)} cases not trained on")
    rows = history(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    state = load_state(run / "last.safetensors")
    assert (state.step, len(state.history)) == (6, 2)


def test_scores_are_those_of_the_files(tiny: Tiny, tiny_runs: TinyRuns) -> None:
    run, record = tiny_runs.runs[0], tiny_runs.records[0]
    rows = []
    for case in tiny.task(run).validation:
        assert case.label is not None
        reference = read_label_map(case.label, tiny.dataset.labels)
        predicted = read_label_map(run / "validation" / f"{case.name}.nii.gz", tiny.dataset.labels)
        assert predicted.grid == reference.grid
        rows.append(dice_per_structure(reference.data, predicted.data, 5, 255))
    means = np.mean(np.array(rows, dtype=float), axis=0)
    assert list(record.structure_dice.values()) == pytest.approx(means.tolist())
    assert record.case_dice == pytest.approx(float(means.mean()))


def test_a_finished_run_is_skipped(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device) -> None:
    run = tiny_runs.runs[0]
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert train(tiny.task(run), Budget(epochs=5), float32_cpu) == tiny_runs.records[0]
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_plan_that_does_not_fit_the_run_or_the_device_is_said_to_be_so(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    edited = replace(tiny.plan, configurations={"3d_fullres": slower})
    assert train(tiny.task(tiny_runs.runs[0], plan=edited), EPOCHS, float32_cpu) == tiny_runs.records[0]
    assert "already trained" in caplog.text
    assert "another plan than the present one; --extend trains it further, --restart anew" in caplog.text
    assert "for a GPU" not in caplog.text
    gpu = replace(tiny.plan, origin=replace(tiny.plan.origin, device="cuda"))
    train(tiny.task(tmp_path, plan=gpu), Budget(epochs=1), float32_cpu)
    assert "the plan is for a GPU" in caplog.text


def test_the_same_seed_trains_the_same(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    train(tiny.task(tmp_path / "a", threads=0), EPOCHS, float32_cpu)
    same_outcome(tmp_path / "a", tiny_runs.runs[0])
    train(tiny.task(tmp_path / "b", seed=1), EPOCHS, float32_cpu)
    assert history(tmp_path / "b")[0]["train_loss"] != history(tmp_path / "a")[0]["train_loss"]


PROGRAM = """
import logging, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from autoseg import train as module
from autoseg.dataset import open_dataset
from autoseg.device import Device
from autoseg.sampling import PatchSampler
from autoseg.schedule import Budget, extension_factor, learning_rate_factor
from autoseg.task import train_task
from autoseg.workspace import Workspace

original = module.step

def step(run, loader, progress):
    do = sys.argv[4] if run.state.step == 4 else ""
    if do.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, do))
    if do == "STOP file":
        (run.task.run / "STOP").touch()
        run.stopping._looked = 0  # a second has passed
    return original(run, loader, progress)

def validate(model, *others):
    if len(sys.argv) > 5:
        time.sleep(0.6)  # sooner, it would be an echo of the first signal
        os.kill(os.getpid(), getattr(signal, sys.argv[5]))
    return validated(model, *others)

module.step, validated, module.validate = step, module.validate, validate
logging.basicConfig(level=logging.INFO, format="%(message)s")
torch.set_num_threads(1)
data, root, run = map(Path, sys.argv[1:4])
task = train_task(open_dataset(data), Workspace(root), None, "0", threads=2)
module.train(replace(task, run=run), Budget(epochs=2), Device(torch.device("cpu"), torch.float32))
"""


def program(tiny: Tiny, run: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Trains in a process of its own. `what` happens to it in its fifth step, and when it begins to validate."""
    command = [sys.executable, "-c", PROGRAM, str(tiny.data), str(tiny.workspace.root), str(run), *what]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_continues_to_the_same_end(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    assert program(tiny, run, "SIGKILL").returncode == -signal.SIGKILL
    assert load_state(run / "last.safetensors").step == 3
    assert not (run / "run.json").exists()
    train(tiny.task(run), EPOCHS, float32_cpu)
    same_outcome(run, tiny_runs.runs[0])
    assert not [p for p in run.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(("what", "reason"), [("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C"), ("STOP file", "STOP file")])
def test_a_run_that_is_told_to_stop_leaves_a_model(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, reason: str
) -> None:
    run = tmp_path / "fold_0"
    done = program(tiny, run, what)
    assert done.returncode == 0, done.stderr
    assert f"{reason}: stopping: validating what was learnt so far; press again to stop at once" in done.stderr
    record = load_run(run)
    assert (record.finished, record.stopped, record.steps) == (True, reason, 5)
    assert record.case_dice is not None
    assert [(row["epoch"], row["step"]) for row in history(run)] == [("1", "3"), ("2", "5")]
    assert not (run / "STOP").exists()
    assert len(load_model((run,), float32_cpu)[0].networks) == 1
    assert train(tiny.task(run), EPOCHS, float32_cpu) == record
    assert f"already trained until it was stopped ({reason})" in caplog.text


def test_a_run_that_is_told_twice_stops_at_once_and_continues_to_the_same_end(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path
) -> None:
    """The second time as the validation begins. Its label maps, of half-trained weights, must not be taken for the last ones."""
    run = tmp_path / "fold_0"
    done = program(tiny, run, "SIGTERM", "SIGINT")
    assert done.returncode != 0
    assert "stopped; the same command continues at step 5" in done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert not (run / "run.json").exists()
    (run / "validation").mkdir()
    name = f"{tiny.task(run).validation[0].name}.nii.gz"
    (run / "validation" / name).write_text("a leftover")
    assert train(tiny.task(run), EPOCHS, float32_cpu).stopped is None
    first, second = (load_file(folder / "last.safetensors") for folder in (run, tiny_runs.runs[0]))
    assert all(torch.equal(first[k], second[k]) for k in first | second)
    assert load_run(run).case_dice == tiny_runs.records[0].case_dice


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_run_continues_to_the_same_weights(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    configuration = replace(tiny.configuration, training=replace(tiny.configuration.training, optimizer=optimizer))
    plan = replace(tiny.plan, configurations={"3d_fullres": configuration})
    train(tiny.task(tmp_path / "whole", plan=plan), EPOCHS, float32_cpu)
    original = train_module.step

    def interrupted(run: Running, loader: object, progress: float) -> float:
        if run.state.step == 4:
            raise KeyboardInterrupt
        return original(run, loader, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "step", interrupted)
    task = tiny.task(tmp_path / "parts", plan=plan)
    with pytest.raises(KeyboardInterrupt):
        train(task, EPOCHS, float32_cpu)
    assert load_state(task.run / "last.safetensors").step == 4
    monkeypatch.undo()
    train(task, EPOCHS, float32_cpu)
    first, second = (load_file(tmp_path / part / "last.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(first[k], second[k]) for k in first | second)
    assert [row["step"] for row in history(task.run)] == ["3", "6"]


def test_more_epochs_than_the_curve_can_be_cut_into_evenly(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 epochs of one step: an epoch ends at every step, whatever floating point makes of k/200 × 200."""

    def no_work(run: Running, loader: object, progress: float) -> float:
        return counted(run)

    monkeypatch.setattr(train_module, "step", no_work)
    rows: list[Epoch] = []
    monkeypatch.setattr(train_module, "write_history", lambda _, seen: rows.append(seen[-1]))
    monkeypatch.setattr(running_module, "save_training", lambda *_: None)
    configuration = replace(tiny.configuration, training=replace(tiny.configuration.training, steps_per_epoch=1))
    task = tiny.task(tmp_path, plan=replace(tiny.plan, configurations={"3d_fullres": configuration}), validation=())
    train(task, Budget(epochs=200), float32_cpu)
    assert [(row.epoch, row.step) for row in rows] == [(i, i) for i in range(1, 201)]


def counted(run: Running) -> float:
    """A step without work, and its loss."""
    run.state = replace(run.state, step=run.state.step + 1)
    return 0.5


def turn_clock(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    """`now[0]` is what the clock shows to a run."""
    for module in (train_module, running_module, interim_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))


@pytest.mark.parametrize("faster", [1.0, 0.5])
def test_a_timed_run_stops_in_time_for_its_validation(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: float
) -> None:
    """On a clock of our own, where a step takes two seconds and a prediction half a second, or ever less."""
    seconds = [0.5]
    now = [0.0]
    turn_clock(monkeypatch, now)
    predicted = interim_module.case_dice

    def step(run: Running, loader: object, progress: float) -> float:
        now[0] += 2
        return counted(run)

    def case_dice(model: object, cases: list[StoredCase], labels: object) -> object:
        now[0] += seconds[-1] * len(cases)
        seconds.append(seconds[-1] * faster)
        return predicted(model, cases, labels)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "step", step)
    monkeypatch.setattr(interim_module, "case_dice", case_dice)
    record = train(tiny.task(tmp_path), Budget(seconds=100), float32_cpu)
    reserve = 3 + 1.2 * seconds[-2] * 2 ** len(tiny.configuration.inference.mirror_axes)
    assert 100 - reserve - 2 < record.seconds < 100 - reserve + 3  # the validation takes no time on this clock
    rows = history(tmp_path)
    assert len(rows) == 5
    assert int(rows[-1]["step"]) == record.steps


def test_another_plan_does_not_continue_the_run(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    task = tiny.task(tmp_path)
    train(task, Budget(epochs=1), float32_cpu)
    (tmp_path / "run.json").unlink()
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    message = r"follows another plan; .*found: training\.learning_rate 0\.01 → 0\.0001; fix: add --restart"
    with pytest.raises(PlanError, match=message):
        train(replace(task, plan=replace(tiny.plan, configurations={"3d_fullres": slower})), EPOCHS, float32_cpu)
    assert load_plan(tmp_path / "plan.json") == tiny.plan
    everything = replace(tiny.configuration.training, epochs=9, schedule="poly", warmup_fraction=0.5, ema_decay=0.5, loss="ce")
    edited = replace(tiny.configuration, training=replace(everything, learning_rate=1.0, optimizer="sgd"))
    with pytest.raises(PlanError, match=r"training\.epochs 2 → 9; .*; training\.warmup_fraction 0\.02 → 0\.5; 2 more; fix"):
        train(replace(task, plan=replace(tiny.plan, configurations={"3d_fullres": edited})), EPOCHS, float32_cpu)
    unseen = replace(tiny.plan, data=replace(tiny.plan.data, unseen=("left stone",)))
    with pytest.raises(PlanError, match=r"follows another plan; .*found: data"):
        train(replace(task, plan=unseen), EPOCHS, float32_cpu)
    reworded = replace(tiny.configuration, why={"training.epochs": "because"})
    assert train(replace(task, plan=replace(tiny.plan, configurations={"3d_fullres": reworded})), EPOCHS, float32_cpu).steps == 6


def test_a_loss_that_is_not_finite_names_the_cases(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = replace(tiny.configuration, training=replace(tiny.configuration.training, augmentation="none"))
    task = tiny.task(tmp_path / "run", plan=replace(tiny.plan, configurations={"3d_fullres": plain}))
    case = StoredCase.open(task.prepared, task.training[0].name)
    image, label = case.read()
    image[:] = np.inf
    write_case(tmp_path / "prepared", case.name, Prepared(image, label, case.placement), "key")
    broken = replace(task, prepared=tmp_path / "prepared", validation=())
    with pytest.raises(DataError, match=rf"case {case.name}, {case.name}: the loss is not finite.*nan at step 0"):
        train(broken, EPOCHS, float32_cpu)
    assert not (task.run / "run.json").exists()
    told = [m for m in caplog.messages if "half the learning rate" in m]
    where = f"the loss is not finite (nan at step 0, cases {case.name}, {case.name}): back to step 0"
    assert told == [f"{where}, with half the learning rate ({i} of 3)" for i in (1, 2, 3)]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_fails_is_taken_back_with_half_the_learning_rate(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """At the fifth step: back to the third, after which the run was saved, and on with other batches."""
    original, steps, cases = step_module.deep_supervision, [], []

    def loss(*given: Any) -> torch.Tensor:
        value = original(*given)
        steps.append(len(steps))
        if len(steps) == 5:
            value = value + (float("nan") if what == "loss" else (value - value.detach()).sqrt())  # of 0: its slope is infinite
        return value

    monkeypatch.setattr(step_module, "deep_supervision", loss)
    batch = PatchSampler.batch
    monkeypatch.setattr(PatchSampler, "batch", lambda self, step: cases.append((self.seed, step)) or batch(self, step))
    task = tiny.task(tmp_path, threads=0)
    record = train(task, EPOCHS, float32_cpu)
    assert f"the {what} is not finite" in caplog.text
    assert "back to step 3, with half the learning rate (1 of 3)" in caplog.text
    assert [step for _, step in cases] == [0, 1, 2, 3, 4, 3, 4, 5]
    assert {seed for seed, _ in cases[:5]} == {0}
    assert {seed for seed, _ in cases[5:]} == {1000003}
    assert record.steps == 6
    assert load_state(tmp_path / "last.safetensors").rollbacks == 1
    rates = [float(row["learning_rate"]) for row in history(tmp_path)]
    assert rates == pytest.approx(
        [0.01 * learning_rate_factor("cosine", 2 / 6, 0.02), 0.005 * learning_rate_factor("cosine", 5 / 6, 0.02)], rel=1e-4
    )
    assert all(bool(t.isfinite().all()) for t in load_file(tmp_path / "last.safetensors").values())


def test_a_network_that_sees_background_only_goes_back_to_its_best(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([0.5, 0.04, 0.06])
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    saved: list[Any] = []
    monkeypatch.setattr(
        rescue_module, "log", SimpleNamespace(warning=lambda *_: saved.append(load_file(tmp_path / "last.safetensors")))
    )
    record = train(tiny.task(tmp_path), Budget(epochs=3), float32_cpu)
    assert (record.steps, record.stopped) == (9, None)
    best = load_file(tmp_path / "best.safetensors")
    assert len(saved) == 1
    assert not any(name.startswith("optimizer/") for name in saved[0])
    for name, weights in best.items():
        assert torch.equal(saved[0][name], weights)
        assert torch.equal(saved[0][name.replace("ema/", "network/")], weights)
    assert load_state(tmp_path / "last.safetensors").rollbacks == 1


def test_a_network_that_cannot_be_rescued(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    message = r"come to predict background only; .*fallen from 0\.500 to 0\.000 at step 15, after 3 attempts.*; fix: a lower"
    with pytest.raises(DataError, match=message):
        train(tiny.task(tmp_path), Budget(epochs=6), float32_cpu)


def test_a_network_that_has_not_begun_to_learn_has_not_collapsed(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.05, 0.0, None])
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    train(tiny.task(tmp_path), Budget(epochs=3), float32_cpu)
    assert load_state(tmp_path / "last.safetensors").rollbacks == 0


def test_a_full_disk_costs_what_was_not_saved_and_no_more(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checkpoint_module.save_file

    def save_file(tensors: Any, path: str, metadata: Any) -> None:
        if '"step": 6' in metadata["state"]:
            Path(path).write_bytes(b"half a file")
            raise OSError(28, "No space left on device")
        original(tensors, path, metadata)

    monkeypatch.setattr(checkpoint_module, "save_file", save_file)
    run = tmp_path / "fold_0"
    with pytest.raises(DiskError, match=r"cannot write; .*safetensors; found: No space left on device; fix: free disk space"):
        train(tiny.task(run), EPOCHS, float32_cpu)
    assert load_state(run / "last.safetensors").step == 3
    monkeypatch.undo()
    train(tiny.task(run), EPOCHS, float32_cpu)
    same_outcome(run, tiny_runs.runs[0])


def test_without_prepared_cases_there_is_nothing_to_learn(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared case"):
        train(tiny.task(tmp_path / "run", prepared=tmp_path / "nothing"), EPOCHS, float32_cpu)


def test_without_validation_cases_a_run_has_no_score(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    record = train(tiny.task(tmp_path, validation=()), Budget(epochs=1), float32_cpu)
    assert (record.finished, record.case_dice, record.postprocess) == (True, None, ())
    assert history(tmp_path)[0]["case_dice"] == ""
    assert not (tmp_path / "best.safetensors").exists()


def test_task_of_a_planned_dataset(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    task = train_task(tiny.dataset, tiny.workspace, None, "0")
    assert task.configuration == "3d_fullres"
    assert task.run == tiny.workspace.root / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    names = {c.name for c in tiny.dataset.cases}
    assert {c.name for c in (*task.training, *task.validation)} == names
    assert len(task.training) == 4
    everything = train_task(tiny.dataset, tiny.workspace, None, "all")
    assert {c.name for c in everything.training} == {c.name for c in everything.validation} == names
    assert "learnt from" in caplog.text


def test_task_that_cannot_be(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plan"):
        train_task(open_dataset(tiny.data), Workspace(tmp_path), None, "0")
    with pytest.raises(UsageError, match="no configuration '2d'"):
        train_task(tiny.dataset, tiny.workspace, "2d", "0")
    with pytest.raises(UsageError, match="no fold '7'"):
        train_task(tiny.dataset, tiny.workspace, None, "7")


def own_clock(monkeypatch: pytest.MonkeyPatch, step_seconds: float, case_seconds: float) -> list[float]:
    """A clock that only steps and interim predictions move; its time is the entry of the list."""
    now = [0.0]
    turn_clock(monkeypatch, now)

    def step(run: Running, loader: object, progress: float) -> float:
        now[0] += step_seconds
        return counted(run)

    def case_dice(model: object, cases: list[StoredCase], labels: object) -> float:
        now[0] += case_seconds * len(cases)
        return 0.5

    monkeypatch.setattr(train_module, "step", step)
    monkeypatch.setattr(interim_module, "case_dice", case_dice)
    return now


def test_cases_too_large_to_score_leave_time_to_learn(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute a case, of ten in all: scored once along the way, and a quarter of the time kept for the end."""
    own_clock(monkeypatch, 2, 60)
    task = tiny.task(tmp_path)
    record = train(replace(task, validation=task.training), Budget(seconds=600), float32_cpu)
    assert (450 - 60) / 2 <= record.steps <= (450 - 60) / 2 + 1
    assert [row["case_dice"] for row in history(tmp_path)].count("0.5") == 1


@pytest.mark.parametrize(("windows", "kept", "validated"), [(100, 75, "1"), (200, 3, "0 of 1")])
def test_cases_that_would_take_too_long_are_not_scored_along_the_way(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: int, kept: int, validated: str
) -> None:
    """Windows of a third of a second: a hundred are more than a tenth of five minutes, which is known before the first one is
    computed; two hundred, mirrored, more than a quarter, so that nothing is kept for a validation that cannot be."""
    own_clock(monkeypatch, 2, 1000)
    monkeypatch.setattr(Model, "n_windows", lambda *_: windows)
    record = train(tiny.task(tmp_path), Budget(seconds=300), float32_cpu)
    assert record.steps == (300 - kept) // 2 + 1
    assert [row["case_dice"] for row in history(tmp_path)] == [""] * 10
    assert record.validated_on == f"{validated} cases not trained on"
    assert (record.case_dice is None) == (validated == "0 of 1")


def interrupt_at_step_25_of_50(monkeypatch: pytest.MonkeyPatch, task: TrainTask, device: Device) -> None:
    """Half of a hundred seconds on a clock of our own; afterwards that clock goes on, without interruption."""
    own_clock(monkeypatch, 2, 0.1)
    usual = train_module.step

    def interrupted(run: Running, loader: object, progress: float) -> float:
        if run.state.step == 25:
            raise KeyboardInterrupt
        return usual(run, loader, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(task, Budget(seconds=100), device)
    monkeypatch.undo()
    own_clock(monkeypatch, 2, 0.1)


def test_more_time_on_resuming_does_not_end_an_epoch_at_every_step(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at_step_25_of_50(monkeypatch, tiny.task(tmp_path), float32_cpu)
    assert len(history(tmp_path)) == 2
    train(tiny.task(tmp_path), Budget(seconds=1000), float32_cpu)
    assert len(history(tmp_path)) == 10


def test_an_interrupted_run_keeps_its_budget(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at_step_25_of_50(monkeypatch, tiny.task(tmp_path), float32_cpu)
    assert 90 < train(tiny.task(tmp_path), None, float32_cpu).seconds < 100


def test_a_finished_run_can_be_extended(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    shutil.copytree(tiny_runs.runs[0], run)
    record = train(tiny.task(run), Budget(epochs=2), float32_cpu, extend=True)
    assert (record.steps, record.finished, record.stopped) == (12, True, None)
    assert load_state(run / "last.safetensors").began == Beginning(6, pytest.approx(record.seconds, rel=1), 2)
    rows, before = history(run), history(tiny_runs.runs[0])
    assert rows[:2] == before
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6"), ("3", "9"), ("4", "12")]
    rates = [0.01 * extension_factor("cosine", p) for p in (2 / 6, 5 / 6)]  # of the last step of each epoch
    assert [float(row["learning_rate"]) for row in rows[2:]] == pytest.approx(rates, rel=1e-4)
    assert load_run(run) == record
    again = train(tiny.task(run), Budget(epochs=1), float32_cpu, extend=True)
    assert (again.steps, len(history(run))) == (15, 5)


def test_an_interrupted_extension_continues(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same call, or without saying again that it is one; as what it is, not as a second extension."""
    original = train_module.step

    def interrupted(run: Running, loader: object, progress: float) -> float:
        if run.state.step == 9:
            raise KeyboardInterrupt
        return original(run, loader, progress)  # type: ignore[arg-type]

    for name in ("whole", "same", "plain"):
        shutil.copytree(tiny_runs.runs[0], tmp_path / name)
    train(tiny.task(tmp_path / "whole"), EPOCHS, float32_cpu, extend=True)
    for name in ("same", "plain"):
        task = tiny.task(tmp_path / name)
        monkeypatch.setattr(train_module, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(task, EPOCHS, float32_cpu, extend=True)
        monkeypatch.undo()
        with pytest.raises(UsageError, match="training of this fold has not finished"):
            load_model((task.run,), float32_cpu)
        with pytest.raises(UsageError, match=r"only a finished run can be extended; .*interrupted at step 9; fix: train without"):
            train(task, Budget(epochs=7), float32_cpu, extend=True)
        train(task, EPOCHS if name == "same" else None, float32_cpu, extend=name == "same")
        same_outcome(tmp_path / "whole", task.run)


def test_an_extension_in_time(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten epochs in a hundred seconds of two-second steps, then a hundred seconds more."""
    own_clock(monkeypatch, 2, 0.1)
    first = train(tiny.task(tmp_path), Budget(seconds=100), float32_cpu)
    n = len(history(tmp_path))
    second = train(tiny.task(tmp_path), Budget(seconds=200), float32_cpu, extend=True)
    assert 90 < first.seconds < 102
    assert 190 < second.seconds - first.seconds < 202
    assert [row["epoch"] for row in history(tmp_path)] == [str(i + 1) for i in range(n + 10)]


def test_only_what_is_finished_can_be_extended(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only a finished run can be extended; .*found: nothing trained"):
        train(tiny.task(tmp_path), EPOCHS, float32_cpu, extend=True)


def test_patience(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best case Dice is that of the second epoch; in an extension the first one's is the best of it."""
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.45, 0.1, 0.2, 0.3])
    monkeypatch.setattr(train_module, "step", lambda run, loader, progress: counted(run))
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    record = train(tiny.task(tmp_path), Budget(epochs=8), float32_cpu, patience=3)
    assert (record.steps, record.stopped, record.finished) == (15, "no better case Dice in 3 epochs", True)
    assert load_state(tmp_path / "last.safetensors").best == 0.5
    record = train(tiny.task(tmp_path), Budget(epochs=8), float32_cpu, extend=True)
    assert (record.steps, record.stopped) == (27, "no better case Dice in 3 epochs")


@pytest.mark.parametrize(("loss", "batch_dice"), [("topk_ce", False), ("dice", True), ("dice", False)])
def test_the_plan_chooses_the_loss(tiny: Tiny, float32_cpu: Device, tmp_path: Path, loss: str, batch_dice: bool) -> None:
    training = replace(tiny.configuration.training, loss=loss, batch_dice=batch_dice, steps_per_epoch=1)
    plan = replace(tiny.plan, configurations={"3d_fullres": replace(tiny.configuration, training=training)})
    task = tiny.task(tmp_path, plan=plan, validation=())
    train(task, Budget(epochs=1), float32_cpu)
    batch = PatchSampler(
        [StoredCase.open(task.prepared, c.name) for c in task.training], plan.configuration(None)[1], plan.data.labels, 0
    ).batch(0)
    torch.manual_seed(0)
    outputs = fresh_network(plan, plan.configuration(None)[1], float32_cpu)(batch.image)
    expected = deep_supervision(outputs, batch.label, plan.data.labels.ignore_index, LOSSES[loss], batch_dice)
    assert float(history(tmp_path)[0]["train_loss"]) == pytest.approx(expected.item(), rel=1e-4)


def folds(tiny: Tiny, root: Path, *names: str) -> list[TrainTask]:
    return [replace(train_task(tiny.dataset, tiny.workspace, None, name), run=root / f"fold_{name}") for name in names]


def test_several_folds_in_turn(tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = train(folds(tiny, tmp_path, "1")[0], Budget(epochs=1), float32_cpu)
    done = list(train_folds(folds(tiny, tmp_path, "0", "1", "2"), Budget(epochs=1), float32_cpu))
    assert [task.fold for task, _ in done] == [record.fold for _, record in done] == ["0", "1", "2"]
    assert done[1][1] == first
    assert "fold 2, 3 of 3; the budget is for each" in caplog.messages
    assert len(load_model(folds_of(tmp_path), float32_cpu)[0].networks) == 3


def test_a_fold_that_was_stopped_is_the_last_one(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = train_module.step

    def stop(run: Running, loader: Any, progress: float) -> float:
        run.stopping.reason = "Ctrl-C"
        return original(run, loader, progress)

    tasks = folds(tiny, tmp_path, "0", "1", "2")
    monkeypatch.setattr(train_module, "step", stop)
    assert len(list(train_folds(tasks, EPOCHS, float32_cpu))) == 1
    assert "not trained: fold 1, 2; the same command goes on" in caplog.text
    monkeypatch.undo()
    done = [record for _, record in train_folds(tasks, EPOCHS, float32_cpu)]
    assert [(record.steps, record.stopped) for record in done] == [(1, "Ctrl-C"), (6, None), (6, None)]


def test_one_fold_at_a_time_is_extended(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one fold at a time can be extended; found: 0, 1; fix: -f with one of them"):
        next(train_folds(folds(tiny, tmp_path, "0", "1"), EPOCHS, float32_cpu, extend=True))


def test_without_a_budget_the_plan_decides(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    epochs, steps = tiny.configuration.training.epochs, tiny.configuration.training.steps_per_epoch
    assert train(tiny.task(tmp_path), None, float32_cpu).steps == epochs * steps
