"""Throughput from the names of processors; how right the figures are is a matter for benchmarks/bench_footprint.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from autoseg.footprint.speed import (
    CORE_AVX512,
    CORE_BF16,
    CORE_OTHER,
    GPU_OTHER,
    GPUS,
    cpu_has_bf16,
    cpu_throughput,
    gpu_throughput,
)
from autoseg.nets.device import choose_device


@pytest.mark.parametrize(
    ("flags", "bf16", "core"),
    [
        ("fpu avx2 avx512f avx512_bf16", True, CORE_BF16),
        ("fpu avx2 avx512f amx_bf16 amx_tile", True, CORE_BF16),
        ("fpu avx2 avx512f avx512bw", False, CORE_AVX512),
        ("fpu avx2", False, CORE_OTHER),
    ],
)
def test_cpu_throughput_by_instructions(tmp_path: Path, flags: str, bf16: bool, core: float) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : avx512_bf16, said only here\nflags\t\t: {flags}\n")
    assert cpu_has_bf16(cpuinfo) == bf16
    assert cpu_throughput(3, cpuinfo) == 3 * core


def test_a_system_without_the_file(tmp_path: Path) -> None:
    assert not cpu_has_bf16(tmp_path / "cpuinfo")
    assert cpu_throughput(2, tmp_path / "cpuinfo") == 2 * CORE_OTHER


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc/cpuinfo")
def test_agrees_with_the_device_that_trains() -> None:
    assert cpu_has_bf16() == (choose_device("cpu").compute == torch.bfloat16)


def test_gpus_by_name() -> None:
    table = dict(GPUS)
    assert gpu_throughput("NVIDIA A100-PCIE-40GB") == table["A100"]
    assert gpu_throughput("NVIDIA H100 80GB HBM3") == table["H100"]
    assert gpu_throughput("NVIDIA GeForce RTX 2080 Ti") == table["2080 Ti"]
    assert gpu_throughput("NVIDIA A10") == GPU_OTHER
    assert min(table.values()) > GPU_OTHER
