"""The speed at which this machine trains, by the name of its processor: nothing is run, and torch is not needed.

All figures are 10⁹ multiply-accumulates a second of whole training steps, normalisation and loss included, on a machine that
does nothing else. They tell minutes from days, no more: the figure for a CPU comes from one plan, and with
other programs running steps took up to seven times as long (benchmarks/results/footprint.md), longest with a hundred classes
or 512×512 pixels.
"""

from __future__ import annotations

from pathlib import Path

from autoseg.system.machine import cpu_count

CORE_BF16 = 60.0
"""A core with bf16 instructions: 29.7·10⁹ a step take 0.23 to 0.25 s on two Zen 5 cores (benchmarks/results/step_bf16.md)."""

CORE_AVX512 = 40.0  # float32: the same step takes 0.371 s
CORE_OTHER = 27.0  # AVX2: the same step takes 0.554 s (benchmarks/results/step.md)

GPUS = (
    ("H200", 36e3),
    ("H100", 36e3),
    ("A100", 18.6e3),
    ("V100", 9.9e3),
    ("2080 Ti", 8.1e3),
)
"""A piece of the name that the driver gives, and the figure. From nnU-Net's epochs of 250 steps and 50 forward passes on the
Decathlon's liver (128³ voxels, two samples, 2864·10⁹ a step): 21 s on an H100 PCIe, 41 on an A100 PCIe, 77 on a V100 PCIe, 94
on a 2080 Ti. An H200 computes as an H100 does: autoseg's step of the same network and patch comes to 34.4e3 there, and to 59e3
if compiled (benchmarks/results/step_cuda.md). On the others autoseg was not measured."""

GPU_OTHER = 4e3  # half of the slowest above, so that unknown cards surprise by being faster


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True where convolutions compute in bfloat16 on this CPU, as `device.choose_device` decides with torch's help.

    False where there is no such file, as on macOS and Windows.
    """
    return bool({"avx512_bf16", "amx_bf16"} & _flags(cpuinfo))


def cpu_throughput(cores: int | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> float:
    """10⁹ multiply-accumulates a second of this CPU.

    Args:
        cores: None means all that this process may use.
    """
    per_core = CORE_BF16 if cpu_has_bf16(cpuinfo) else CORE_AVX512 if "avx512f" in _flags(cpuinfo) else CORE_OTHER
    return per_core * (cpu_count() if cores is None else cores)


def gpu_throughput(name: str) -> float:
    """10⁹ multiply-accumulates a second of a GPU by its name; a careful figure for one that is not in the table."""
    return next((figure for part, figure in GPUS if part.lower() in name.lower()), GPU_OTHER)


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.startswith("flags") for word in line.split())
