"""Two processes that train together, started by torchrun: what they draw, compute, say and write; and what ends them.

The scenarios are in two_processes.py. They run once, and the tests look at what came of them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.limits import HANGS
from helpers.runs import history
from helpers.tiny import Tiny
from helpers.two_processes import label_losses, landmark_losses, watched, with_batch
from safetensors.torch import load_file

from autoseg.errors import UsageError
from autoseg.nets.device import Device
from autoseg.runs.record import load_run
from autoseg.training import distributed

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
ENVIRONMENT["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "120"  # s that newer torchruns wait after a signal: the machine may be busy

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="this torch has no torchrun, or no gloo"
)


@dataclass(frozen=True)
class Both:
    """What the two processes found, the runs that they left in `out`, and what they said."""

    out: Path
    found: tuple[dict[str, Any], dict[str, Any]]
    said: list[str]

    def same(self, scenario: str) -> dict[str, Any]:
        """What came of a training, which must be the same in both processes but for the samples."""
        first, second = ({k: v for k, v in f[scenario].items() if k != "samples"} for f in self.found)
        assert first == second
        return first


@pytest.fixture(scope="module")
def both(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Both:
    out = tmp_path_factory.mktemp("both")
    script = Path(__file__).parents[1] / "helpers" / "two_processes.py"
    command = [*TORCHRUN, str(script), str(tiny.data), str(tiny.workspace.root), str(out)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((out / f"{i}.json").read_text()) for i in range(2))
    return Both(out, (first, second), done.stderr.splitlines())


def test_broadcast_from_the_first_process(both: Both) -> None:
    assert [(f["alone"], f["rank"], f["world_size"]) for f in both.found] == [(1, 0, 2), (1, 1, 2)]
    assert [f["decided"] for f in both.found] == [[0.5, None]] * 2


@pytest.mark.parametrize("name", [*label_losses(), *landmark_losses()])
def test_gradients_of_shares_sum_to_the_batch(both: Both, name: str) -> None:
    """Of three samples, little of which is annotated, so that a mean of means would be another number."""
    values = [f["losses"][name] for f in both.found]
    assert values[0] == values[1]
    value, whole, error, largest = values[0]
    assert largest > 0.03
    if name.startswith("topk_ce"):  # the worst tenth of each part is another one
        assert 0 < value < whole
    else:
        assert value == pytest.approx(whole, rel=1e-12)
        assert error < 1e-12 * largest


def test_two_processes_train_as_one(both: Both, tiny: Tiny, float32_cpu: Device, tmp_path: Path) -> None:
    """A batch of three: two samples for the first process, one for the second."""
    together, alone = both.same("three"), watched(with_batch(tiny.job(tmp_path), tmp_path / "run", 3))
    drawn = [f["three"]["samples"] for f in both.found]
    for (step, samples), (step_0, first), (step_1, second) in zip(alone["samples"], *drawn, strict=True):
        assert step == step_0 == step_1
        assert [first[0], second[0], first[1]] == samples
        assert len(set(samples)) == 3
    assert (together["steps"], together["rollbacks"], together["stopped"]) == (6, 0, None)
    for one, two in zip(alone["history"], together["history"], strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    one, two = (load_file(run / "last.safetensors") for run in (tmp_path / "run", both.out / "three"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_only_the_first_process_logs(both: Both) -> None:
    assert both.said.count("2 processes share each batch of 3 patches") == 1
    told = [line for line in both.said if "divide" in line]
    assert told == ["note: 3 patches do not divide evenly among 2 processes: those with 1 wait for those with 2"]
    assert sum(line.startswith("epoch 1/2") for line in both.said) == 4  # once for each of the trainings


def test_only_the_first_process_writes(both: Both) -> None:
    for scenario in ("three", "not finite"):
        run = both.out / scenario.replace(" ", "_")
        rows = [(int(row["epoch"]), int(row["step"])) for row in history(run)]
        assert rows == [(1, 3), (2, 6)]
        assert load_run(run).case_dice is not None
        assert not list(run.rglob(".*"))


def test_more_processes_than_patches(both: Both) -> None:
    message = "more processes than patches in a batch; found: 2 processes, 1 in a batch; fix: --nproc-per-node 1, or a larger"
    assert [f["one"][: len(message)] for f in both.found] == [message] * 2
    assert not (both.out / "one").exists()


def test_rollback_in_all_processes(both: Both) -> None:
    came = both.same("not finite")
    assert (came["steps"], came["rollbacks"]) == (6, 1)
    assert [[step for step, _ in f["not finite"]["samples"]] for f in both.found] == [[0, 1, 2, 3, 4, 3, 4, 5]] * 2
    assert [f["saved"] for f in both.found] == [1, 1]
    told = [line for line in both.said if "not finite" in line]
    assert len(told) == 1
    assert "back to step 3, with half the learning rate (1 of 3)" in told[0]
    assert told[0].count("phantom_") == 2  # the case of each process


def test_stopping_two_processes(both: Both) -> None:
    came = both.same("stopped")
    assert (came["steps"], came["stopped"]) == (5, "SIGTERM")
    assert load_run(both.out / "stopped").case_dice is not None
    assert [row["step"] for row in history(both.out / "stopped")] == ["3", "5"]


def test_lost_process_is_reported(both: Both) -> None:
    first, second = (f["interrupted"] for f in both.found)
    assert first == "KeyboardInterrupt"
    assert second.startswith("process 1 of 2 has lost another process that trains with it; found: ")
    assert second.endswith("; fix: read the messages of the other process; the same command continues")


@contextmanager
def started(command: list[str], stderr: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block."""
    with open(stderr, "w") as errors:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun then ends those that it has started
                try:
                    process.communicate(timeout=HANGS)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.mark.parametrize("told", ["SIGTERM", "STOP file"])
def test_torchrun_command_resumes_and_stops(both: Both, tiny: Tiny, tmp_path: Path, told: str) -> None:
    """After the interruption at step 4; a signal is told to torchrun."""
    root = tmp_path / "work"
    shutil.copytree(tiny.workspace.root, root, ignore=shutil.ignore_patterns("runs"))
    run = root / "runs" / "Dataset001_Phantom" / "3d_fullres" / "fold_0"
    shutil.copytree(both.out / "interrupted", run)
    words = ("train", "-d", str(tiny.data), "--root", str(root), "--device", "cpu", "--epochs", "10000", "--json")
    with started([*TORCHRUN, "-m", "autoseg", *words], tmp_path / "stderr") as process:
        deadline = time.monotonic() + HANGS
        while len(history(run)) < 2:
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if told == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            (run / "STOP").touch()
        printed, _ = process.communicate(timeout=HANGS)
    said = (tmp_path / "stderr").read_text().splitlines()
    assert sum("continuing at step 4" in line for line in said) == 1
    assert sum(line.startswith(f"{told}: stopping: validating") for line in said) == 1
    assert not [line for line in said if line.startswith("autoseg: error")]
    record = load_run(run)
    assert record.stopped == json.loads(printed)["stopped"] == told
    assert not (run / "STOP").exists()
    assert record.case_dice is not None
    steps = [int(row["step"]) for row in history(run)]
    assert steps[0] == 3  # by the training before
    assert steps == sorted(set(steps))
    assert steps[-1] == record.steps


def torchrun_starts(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """This process is the second of so many."""
    for name, value in (("TORCHELASTIC_RUN_ID", "a"), ("WORLD_SIZE", str(processes)), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)


def test_local_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.local_device("auto") == "auto"
    torchrun_starts(monkeypatch, 2)
    for there, place in ((True, "cuda:1"), (False, "auto")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert distributed.local_device("auto") == place
        assert distributed.local_device("cpu") == "cpu"
    for wanted in ("cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"need a GPU each; found: --device {wanted}; allowed: auto, cuda, cpu"):
            distributed.local_device(wanted)
    torchrun_starts(monkeypatch, 1)
    assert distributed.local_device("cuda:0") == "cuda:0"


def test_world_size_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm scripts and container services often set WORLD_SIZE; without torchrun nobody would come to meet."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with distributed.process_group(torch.device("cpu")):
        assert (distributed.world_size(), distributed.rank(), distributed.is_first()) == (1, 0, True)


def test_collectives_in_a_single_process(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    distributed.all_reduce_gradients([weight])
    assert weight.grad.tolist() == [1, 2]
    assert distributed.all_reduce_sum(weight) is weight
    assert (distributed.all_reduce_float(0.5), distributed.broadcast_float(0.25), distributed.broadcast_bool(True)) == (
        0.5,
        0.25,
        True,
    )
    assert (distributed.broadcast_score(None), distributed.all_gather_names(("a", "b"))) == (None, ("a", "b"))
    distributed.log_shares(1)
    distributed.barrier()
    assert distributed.local_batch_size(5) == 5
    assert not caplog.messages


def test_local_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for i in range(3):
        monkeypatch.setattr(distributed, "rank", lambda i=i: i)
        shares.append(distributed.local_batch_size(7))
    assert shares == [3, 2, 2]
