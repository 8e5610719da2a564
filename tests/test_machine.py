"""What nvidia-smi says, and what it means when it says nothing; what a process takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autoseg import machine
from autoseg.machine import Gpu, find_gpu, peak_ram_gb


def answer(monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(
        machine.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, stdout=text, stderr="")
    )


def test_the_smallest_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "24576, NVIDIA RTX A5000\n11264, NVIDIA GeForce RTX 2080 Ti\n")
    assert find_gpu() == Gpu("NVIDIA GeForce RTX 2080 Ti", 11.0)


@pytest.mark.parametrize(("text", "code"), [("", 0), ("No devices were found\n", 0), ("24576, A5000\n", 9)])
def test_a_driver_that_names_none(monkeypatch: pytest.MonkeyPatch, text: str, code: int) -> None:
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
    small = "from autoseg.machine import peak_ram_gb; print(peak_ram_gb())"
    said = subprocess.run([sys.executable, "-c", small], capture_output=True, text=True, check=True).stdout
    assert 0.005 < float(said) < 0.2
    assert len(large) == 400_000_000
