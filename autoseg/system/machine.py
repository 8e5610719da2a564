"""Memory, cores and GPU of this machine, found without torch, which takes seconds to import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """A graphics card, by the name that its driver gives it."""

    name: str
    memory_gb: float


def announced_processes() -> int:
    """Number of processes that torchrun has started; clusters set WORLD_SIZE for programs that they start once, too."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1  # as torch.distributed tells it


def find_gpu() -> Gpu | None:
    """Find the NVIDIA GPU with the least memory; None without a driver that answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a broken driver hangs
        return None
    gpus = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        memory, _, name = line.partition(",")
        if memory.strip().replace(".", "").isdecimal():
            gpus.append(Gpu(name.strip(), round(float(memory) / 1024, 1)))
    return min(gpus, key=lambda gpu: gpu.memory_gb, default=None)


def free_ram_gb(root: Path = Path("/")) -> float | None:
    """RAM (GB) that this process may still take; None where the system does not tell (only Linux does).

    The free RAM, or the rest of the limit of a container or a cluster's job if that is less.

    Args:
        root: folder of `proc` and `sys`.
    """
    lines = _read_text(root / "proc/meminfo").splitlines()
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else min((free, *_remaining_in_cgroups(root))) / 1e9


def peak_ram_gb() -> float | None:
    """Largest resident size (GB) of this process so far; None where the system does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # where the figure of `resource` begins with the size of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _remaining_in_cgroups(root: Path) -> list[int]:
    """Remaining bytes of each memory limit that Linux's control groups, old or new, put on this process."""
    remaining = []
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        old = controllers == "memory"
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        top = root / "sys/fs/cgroup" / controllers
        innermost = top / path.lstrip("/")  # absent where a container sees its group as the topmost one
        for group in (folder for folder in (innermost, *innermost.parents) if folder.is_relative_to(top)):
            limit_bytes, used_bytes = _read_text(group / limit).strip(), _read_text(group / used).strip()
            if limit_bytes.isdecimal() and used_bytes.isdecimal():
                cache = _file_cache(group, "total_inactive_file" if old else "inactive_file")
                remaining.append(max(0, int(limit_bytes) - int(used_bytes) + cache))
    return remaining


def _file_cache(group: Path, name: str) -> int:
    """Bytes of files that a group has read and that the kernel drops when the group needs memory."""
    values = dict(line.split() for line in _read_text(group / "memory.stat").splitlines())
    return int(values.get(name, 0))


def _read_text(path: Path) -> str:
    """Read a file of the kernel; empty if it is absent or may not be read."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def cpu_count() -> int:
    """Count of the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
