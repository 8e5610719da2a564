"""Training: what it writes, that it skips and resumes, and that it stops on bad data and foreign plans."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers.limits import HANGS
from helpers.runs import EPOCHS, ManualClock, dice, history, interrupt_at, same_outcome
from helpers.tiny import Tiny, TinyRuns
from safetensors.torch import load_file

from autoseg.dataset import open_dataset
from autoseg.errors import DataError, DiskError, ResourceError, UsageError
from autoseg.evaluation.metrics import dice_per_structure
from autoseg.inference.model import load_model
from autoseg.io import read_label_map
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Optimizer, load_plan
from autoseg.preprocessing.store import StoredCase
from autoseg.runs.budget import RunBudget
from autoseg.runs.history import Epoch
from autoseg.runs.job import TrainingJob
from autoseg.runs.options import TrainingOptions
from autoseg.runs.record import load_run, model_folds
from autoseg.training import checkpoint as checkpoint_module
from autoseg.training import reporting as reporting_module
from autoseg.training import run as run_module
from autoseg.training import train as train_module
from autoseg.training.checkpoint import load_state
from autoseg.training.losses import LOSSES, deep_supervision
from autoseg.training.run import TrainingRun
from autoseg.training.sampling import PatchSampler
from autoseg.training.train import train, train_folds


def test_files_of_a_run(tiny: Tiny, tiny_runs: TinyRuns) -> None:
    run, record = tiny_runs.runs[0], tiny_runs.records[0]
    validation = tiny.job(run).validation
    assert {p.name for p in run.iterdir()} == {
        "last.safetensors",
        "best.safetensors",
        "metrics.csv",
        "progress.png",
        "plan.json",
        "run.json",
        "postprocess.json",
        "training_cases.json",
        "validation",
    }
    assert {p.name for p in (run / "validation").iterdir()} == {f"{c.name}.nii.gz" for c in validation}
    assert load_plan(run / "plan.json") == tiny.plan
    assert load_run(run) == record
    assert (record.dataset, record.configuration, record.fold) == ("Dataset001_Phantom", "3d_fullres", "0")
    assert (record.finished, record.steps, record.validated_on) == (True, 6, "1 case not trained on")
    rows = history(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    state = load_state(run / "last.safetensors")
    assert (state.step, len(state.history)) == (6, 2)


def test_scores_are_those_of_the_files(tiny: Tiny, tiny_runs: TinyRuns) -> None:
    run, record = tiny_runs.runs[0], tiny_runs.records[0]
    rows = []
    for case in tiny.job(run).validation:
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
    assert train(tiny.job(run), TrainingOptions(RunBudget(epochs=5)), float32_cpu) == tiny_runs.records[0]
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_notes_on_another_plan_and_device(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slower = replace(tiny.configuration, training=replace(tiny.configuration.training, learning_rate=1e-4))
    edited = replace(tiny.plan, configurations={"3d_fullres": slower})
    assert train(tiny.job(tiny_runs.runs[0], plan=edited), EPOCHS, float32_cpu) == tiny_runs.records[0]
    assert "already trained" in caplog.text
    assert "another plan than the present one; --restart (Python: restart=True) trains it anew" in caplog.text
    assert "for a GPU" not in caplog.text
    train(tiny.job(tiny_runs.runs[0], plan=edited), replace(EPOCHS, seed=3), float32_cpu)
    assert "but with another plan than the present one and the seed 0, not 3; --restart" in caplog.text
    gpu = replace(tiny.plan, origin=replace(tiny.plan.origin, device="cuda"))
    train(tiny.job(tmp_path, plan=gpu), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert "the plan is for a GPU" in caplog.text


def test_the_same_seed_trains_the_same(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    train(tiny.job(tmp_path / "a"), replace(EPOCHS, threads=0), float32_cpu)
    same_outcome(tmp_path / "a", tiny_runs.runs[0])
    train(tiny.job(tmp_path / "b"), replace(EPOCHS, seed=1), float32_cpu)
    assert history(tmp_path / "b")[0]["train_loss"] != history(tmp_path / "a")[0]["train_loss"]


PROGRAM = """
import logging, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from autoseg.training import stopping, train as module
from autoseg.dataset import open_dataset
from autoseg.nets.device import Device
from autoseg.training.sampling import PatchSampler
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import TrainingOptions
from autoseg.training.schedule import extension_factor, learning_rate_factor
from autoseg.pipeline.training import training_job
from autoseg.pipeline.workspace import Workspace

original = module.step

def step(run, loader, progress):
    do = sys.argv[4] if run.state.step == 4 else ""
    if do.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, do))
    if do == "STOP file":
        (run.job.run / "STOP").touch()
    return original(run, loader, progress)

def validate(*arguments, **options):
    if len(sys.argv) > 5:
        time.sleep(0.6)  # sooner, it would be an echo of the first signal
        os.kill(os.getpid(), getattr(signal, sys.argv[5]))
    return validated(*arguments, **options)

module.step, validated, module.validate = step, module.validate, validate
stopping.CHECK_EVERY = 0.0
logging.basicConfig(level=logging.INFO, format="%(message)s")
torch.set_num_threads(1)
data, root, run = map(Path, sys.argv[1:4])
job = training_job(open_dataset(data), Workspace(root), None, "0")
module.train(replace(job, run=run), TrainingOptions(RunBudget(epochs=2), threads=2), Device(torch.device("cpu"), torch.float32))
"""


def program(tiny: Tiny, run: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Trains in a process of its own. `what` happens to it in its fifth step, and when it begins to validate."""
    command = [sys.executable, "-c", PROGRAM, str(tiny.data), str(tiny.workspace.root), str(run), *what]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS, check=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_continues_to_the_same_end(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    run = tmp_path / "fold_0"
    assert program(tiny, run, "SIGKILL").returncode == -signal.SIGKILL
    assert load_state(run / "last.safetensors").step == 3
    assert not load_run(run).finished
    train(tiny.job(run), EPOCHS, float32_cpu)
    same_outcome(run, tiny_runs.runs[0])
    assert not [p for p in run.iterdir() if p.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_three_times_in_a_row(tiny: Tiny, tmp_path: Path) -> None:
    """The same command each time, killed somewhere after the first, second and fourth epoch (see benchmarks/bench_kill.py)."""
    for name in ("whole", "parts"):
        shutil.copytree(tiny.workspace.root, tmp_path / name, ignore=shutil.ignore_patterns("runs"))

    def command(name: str) -> list[str]:
        words = ("-d", str(tiny.data), "--root", str(tmp_path / name), "--epochs", "6", "--deterministic", "--device", "cpu")
        return [sys.executable, "-m", "autoseg", "train", *words]

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), env=environment, capture_output=True, timeout=HANGS, check=True)
    run = tmp_path / "parts" / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    rng = np.random.default_rng(0)
    for epochs in (1, 2, 4):
        with subprocess.Popen(command("parts"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not (run / "metrics.csv").is_file() or len(history(run)) < epochs:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        steps = [int(row["step"]) for row in history(run)]
        assert steps == [3 * (i + 1) for i in range(len(steps))]
    subprocess.run(command("parts"), env=environment, capture_output=True, timeout=HANGS, check=True)
    same_outcome(tmp_path / "whole" / run.relative_to(tmp_path / "parts"), run)
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize(("what", "reason"), [("SIGTERM", "SIGTERM"), ("SIGINT", "Ctrl-C"), ("STOP file", "STOP file")])
def test_stopped_run_leaves_a_model(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, reason: str
) -> None:
    run = tmp_path / "fold_0"
    done = program(tiny, run, what)
    assert done.returncode == 0, done.stderr
    assert f"{reason}: stopping: validating the present model; Ctrl-C or SIGTERM now stops at once" in done.stderr
    record = load_run(run)
    assert (record.finished, record.stopped, record.steps) == (True, reason, 5)
    assert record.case_dice is not None
    assert [(row["epoch"], row["step"]) for row in history(run)] == [("1", "3"), ("2", "5")]
    assert not (run / "STOP").exists()
    assert len(load_model((run,), float32_cpu)[0].networks) == 1
    assert train(tiny.job(run), EPOCHS, float32_cpu) == record
    assert f"; ended early: {reason})" in caplog.text
    assert "; --extend 1 trains it for the rest of its budget, --restart (Python: restart=True) anew" in caplog.text


def test_run_stopped_twice_resumes_to_the_same_end(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    """The second time as the validation begins. Its label maps, of half-trained weights, must not be taken for the last ones."""
    run = tmp_path / "fold_0"
    done = program(tiny, run, "SIGTERM", "SIGINT")
    assert done.returncode != 0
    assert "stopped; the same command continues at step 5" in done.stderr
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert not load_run(run).finished
    (tmp_path / "elsewhere").mkdir()
    (run / "validation").symlink_to(tmp_path / "elsewhere")  # on another disk, or in a folder of somebody else
    name = f"{tiny.job(run).validation[0].name}.nii.gz"
    (run / "validation" / name).write_text("a leftover")
    assert train(tiny.job(run), EPOCHS, float32_cpu).stopped is None
    assert (tmp_path / "elsewhere" / name).read_text() == "a leftover"
    first, second = (load_file(folder / "last.safetensors") for folder in (run, tiny_runs.runs[0]))
    assert all(torch.equal(first[k], second[k]) for k in first | second)
    assert load_run(run).case_dice == tiny_runs.records[0].case_dice
    assert [(row["step"], row["case_dice"] != "") for row in history(run)] == [("3", True), ("5", False), ("6", True)]


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_an_interrupted_run_continues_to_the_same_weights(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    configuration = replace(tiny.configuration, training=replace(tiny.configuration.training, optimizer=optimizer))
    plan = replace(tiny.plan, configurations={"3d_fullres": configuration})
    train(tiny.job(tmp_path / "whole", plan=plan), EPOCHS, float32_cpu)
    interrupt_at(monkeypatch, 4)
    job = tiny.job(tmp_path / "parts", plan=plan)
    with pytest.raises(KeyboardInterrupt):
        train(job, EPOCHS, float32_cpu)
    assert load_state(job.run / "last.safetensors").step == 4
    monkeypatch.undo()
    train(job, EPOCHS, float32_cpu)
    first, second = (load_file(tmp_path / part / "last.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(first[k], second[k]) for k in first | second)
    assert [row["step"] for row in history(job.run)] == ["3", "6"]


def test_two_hundred_epochs_are_two_hundred_rows(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 epochs of one step: an epoch ends at every step, whatever floating point makes of k/200 × 200."""

    def no_work(run: TrainingRun, loader: object, progress: float) -> None:
        run.count_step(0.5)

    monkeypatch.setattr(train_module, "step", no_work)
    rows: list[Epoch] = []
    monkeypatch.setattr(reporting_module, "write_history", lambda _, seen: rows.append(seen[-1]))
    monkeypatch.setattr(run_module, "save_training", lambda *_: None)
    configuration = replace(tiny.configuration, training=replace(tiny.configuration.training, steps_per_epoch=1))
    job = tiny.job(tmp_path, plan=replace(tiny.plan, configurations={"3d_fullres": configuration}), validation=())
    train(job, TrainingOptions(RunBudget(epochs=200)), float32_cpu)
    assert [(row.epoch, row.step) for row in rows] == [(i, i) for i in range(1, 201)]


def test_full_disk_costs_only_unsaved_steps(
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
        train(tiny.job(run), EPOCHS, float32_cpu)
    assert load_state(run / "last.safetensors").step == 3
    monkeypatch.undo()
    train(tiny.job(run), EPOCHS, float32_cpu)
    same_outcome(run, tiny_runs.runs[0])


def test_progress_line_on_a_terminal(
    tiny: Tiny,
    float32_cpu: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "autoseg")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(train_module, "step", lambda run, loader, progress: run.count_step(0.5))
    train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert re.search(r"\r\x1b\[Kepoch 1/1  step 1  loss 0\.500  \d+\.\d\d s/step  .*\d s left\r", capsys.readouterr().err)


def test_no_prepared_cases(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared case"):
        train(tiny.job(tmp_path / "run", prepared=tmp_path / "nothing"), EPOCHS, float32_cpu)


def test_no_validation_cases(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    record = train(tiny.job(tmp_path, validation=()), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    assert (record.finished, record.case_dice, record.postprocess) == (True, None, ())
    assert history(tmp_path)[0]["case_dice"] == ""
    assert not (tmp_path / "best.safetensors").exists()


def test_job_of_a_planned_dataset(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    job = training_job(tiny.dataset, tiny.workspace, None, "0")
    assert job.configuration == "3d_fullres"
    assert job.run == tiny.workspace.root / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    names = {c.name for c in tiny.dataset.cases}
    assert {c.name for c in (*job.training, *job.validation)} == names
    assert len(job.training) == 4
    everything = training_job(tiny.dataset, tiny.workspace, None, "all")
    assert {c.name for c in everything.training} == {c.name for c in everything.validation} == names
    assert "learnt from" in caplog.text


def test_job_that_cannot_be_made(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no plan"):
        training_job(open_dataset(tiny.data), Workspace(tmp_path), None, "0")
    with pytest.raises(UsageError, match="no configuration '2d'"):
        training_job(tiny.dataset, tiny.workspace, "2d", "0")
    with pytest.raises(UsageError, match="no fold '7'"):
        training_job(tiny.dataset, tiny.workspace, None, "7")


def test_patience(tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best case Dice is that of the second epoch; in an extension the first one's is the best of it."""
    scores = dice(0.1, 0.5, 0.4, 0.5, 0.3, 0.45, 0.1, 0.2, 0.3)
    monkeypatch.setattr(train_module, "step", lambda run, loader, progress: run.count_step(0.5))
    monkeypatch.setattr(train_module, "interim_score", lambda *_: next(scores))
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=8), patience=3), float32_cpu)
    assert (record.steps, record.stopped, record.finished) == (15, "no better case Dice in 3 epochs", True)
    assert load_state(tmp_path / "last.safetensors").best == 0.5
    record = train(tiny.job(tmp_path), TrainingOptions(RunBudget(epochs=8), extend=True), float32_cpu)
    assert (record.steps, record.stopped) == (27, "no better case Dice in 3 epochs")


@pytest.mark.parametrize(("loss", "batch_dice"), [("topk_ce", False), ("dice", True), ("dice", False)])
def test_the_plan_chooses_the_loss(tiny: Tiny, float32_cpu: Device, tmp_path: Path, loss: str, batch_dice: bool) -> None:
    training = replace(tiny.configuration.training, loss=loss, batch_dice=batch_dice, steps_per_epoch=1)
    plan = replace(tiny.plan, configurations={"3d_fullres": replace(tiny.configuration, training=training)})
    job = tiny.job(tmp_path, plan=plan, validation=())
    train(job, TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    batch = PatchSampler(
        [StoredCase.open(job.prepared, c.name) for c in job.training], plan.configuration(None)[1], plan.data.labels, 0
    ).batch(0)
    torch.manual_seed(0)
    outputs = build_network(plan, plan.configuration(None)[1], float32_cpu)(batch.image).logits
    expected = deep_supervision(outputs, batch.label, plan.data.labels.ignore_index, LOSSES[loss], batch_dice)
    assert float(history(tmp_path)[0]["train_loss"]) == pytest.approx(expected.item(), rel=1e-4)


def folds(tiny: Tiny, root: Path, *names: str) -> list[TrainingJob]:
    return [replace(training_job(tiny.dataset, tiny.workspace, None, name), run=root / f"fold_{name}") for name in names]


def test_several_folds_in_turn(tiny: Tiny, float32_cpu: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = train(folds(tiny, tmp_path, "1")[0], TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    done = list(train_folds(folds(tiny, tmp_path, "0", "1", "2"), TrainingOptions(RunBudget(epochs=1)), float32_cpu))
    assert [d.job.fold for d in done] == [d.record.fold for d in done] == ["0", "1", "2"]
    assert done[1].record == first
    assert [d.skipped for d in done] == [False, True, False]
    assert "fold 2, 3 of 3; the budget is for each" in caplog.messages
    assert len(load_model(model_folds(tmp_path), float32_cpu)[0].networks) == 3


def test_no_fold_is_trained_after_a_stopped_one(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = train_module.step

    def stop(run: TrainingRun, loader: Any, progress: float) -> None:
        run.stopping.reason = "Ctrl-C"
        original(run, loader, progress)

    jobs = folds(tiny, tmp_path, "0", "1", "2")
    monkeypatch.setattr(train_module, "step", stop)
    assert len(list(train_folds(jobs, EPOCHS, float32_cpu))) == 1
    assert "not trained: fold 1, 2; the same command trains the rest" in caplog.text
    monkeypatch.undo()
    done = [d.record for d in train_folds(jobs, EPOCHS, float32_cpu)]
    assert [(record.steps, record.stopped) for record in done] == [(1, "Ctrl-C"), (6, None), (6, None)]


def test_fold_stopped_while_it_is_validated(
    tiny: Tiny, float32_cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = train_module.validate

    def stop(*arguments: Any, **options: Any) -> Any:
        (tmp_path / "fold_0" / "STOP").touch()
        return original(*arguments, **options)

    monkeypatch.setattr(train_module, "validate", stop)
    (done,) = train_folds(folds(tiny, tmp_path, "0", "1"), EPOCHS, float32_cpu)
    assert (done.record.finished, done.record.stopped, done.told_to_stop) == (True, None, True)
    assert "not trained: fold 1; the same command trains the rest" in caplog.text


def test_one_fold_at_a_time_is_extended(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one fold at a time can be extended; found: 0, 1; fix: -f with one of them"):
        next(train_folds(folds(tiny, tmp_path, "0", "1"), replace(EPOCHS, extend=True), float32_cpu))


def test_a_start_that_takes_the_whole_time_leaves_no_model(tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    """A slow disk, a busy machine: the budget is spent before the first step."""
    clock, run = ManualClock(), tmp_path / "fold_0"

    def hurried() -> float:
        clock.now += 10
        return clock.now

    with pytest.raises(ResourceError, match=r"no step was trained; file: .*fold_0; found: .* for the start; fix: more --time"):
        train(tiny.job(run), TrainingOptions(RunBudget(seconds=20), threads=0), float32_cpu, clock=hurried)
    assert not run.exists()
