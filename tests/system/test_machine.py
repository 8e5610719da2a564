"""What nvidia-smi says, and what it means when it says nothing; what a process takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from autoseg.system import machine
from autoseg.system.machine import Gpu, find_gpu, free_ram_gb, peak_ram_gb


def answer(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(
        machine.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, stdout=text, stderr="")
    )


def test_the_smallest_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "24576, NVIDIA RTX A5000\n11264, NVIDIA GeForce RTX 2080 Ti\n")
    assert find_gpu() == Gpu("NVIDIA GeForce RTX 2080 Ti", 11.0)


@pytest.mark.parametrize(("text", "code"), [("", 0), ("No devices were found\n", 0), ("24576, A5000\n", 9)])
def test_driver_without_gpu(monkeypatch: pytest.MonkeyPatch, text: str, code: int) -> None:
    answer(monkeypatch, text, code)
    assert find_gpu() is None


def test_a_driver_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    answer(monkeypatch, "")
    monkeypatch.setattr(machine.subprocess, "run", hang)
    assert find_gpu() is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    assert find_gpu() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_peak_is_that_of_this_process_alone() -> None:
    """Not of the one that has started it, which may be large."""
    before = peak_ram_gb()
    assert before is not None
    large = b"x" * 400_000_000
    grown = peak_ram_gb()
    assert grown is not None
    assert grown > before + 0.2 or grown > 1  # less where an earlier test had taken as much
    small = "from autoseg.system.machine import peak_ram_gb; print(peak_ram_gb())"
    said = subprocess.run([sys.executable, "-c", small], capture_output=True, text=True, check=True).stdout
    assert 0.005 < float(said) < 0.2
    assert len(large) == 400_000_000


NO_FILES: Mapping[str, str] = {}


def linux(root: Path, groups: str, files: Mapping[str, str] = NO_FILES) -> Path:
    """A root folder with 4.096 GB free, and control groups whose files are given by path."""
    known = {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n", "proc/self/cgroup": groups}
    for path, text in {**known, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_free_ram_of_the_system(tmp_path: Path) -> None:
    assert free_ram_gb(tmp_path) is None
    assert free_ram_gb(linux(tmp_path, "0::/\n")) == 4.096
    assert free_ram_gb(linux(tmp_path, "0::/user\n", {"user/memory.max": "max\n", "user/memory.current": "9\n"})) == 4.096


def test_free_ram_below_the_limit_of_a_job(tmp_path: Path) -> None:
    """That of the group itself or of one around it; files in its cache do not count."""
    files = {
        "slurm/memory.max": "3000000000\n",
        "slurm/memory.current": "1500000000\n",
        "slurm/memory.stat": "anon 1000000000\ninactive_file 500000000\n",
        "slurm/job/memory.max": "max\n",
        "slurm/job/memory.current": "1500000000\n",
    }
    assert free_ram_gb(linux(tmp_path, "0::/slurm/job\n", files)) == 2.0


def test_free_ram_in_a_container_with_old_control_groups(tmp_path: Path) -> None:
    """Which sees its own group as the topmost one, under a path that is not there."""
    files = {
        "memory/memory.limit_in_bytes": "2000000000\n",
        "memory/memory.usage_in_bytes": "2000000000\n",
        "memory/memory.stat": "total_inactive_file 100000000\n",
    }
    root = linux(tmp_path, "4:memory:/docker/0123\n3:cpuset:/\n", files)
    assert free_ram_gb(root) == 0.1
    (root / "sys/fs/cgroup/memory/memory.usage_in_bytes").write_text("500000000")
    assert free_ram_gb(root) == 1.6
