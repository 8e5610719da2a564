"""What this machine has and what a process takes of it, found out without torch, which takes seconds to import."""

from __future__ import annotations

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


def find_gpu() -> Gpu | None:
    """The NVIDIA GPU with the least memory; None without a driver that answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a broken driver hangs
        return None
    found = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else ():
        memory, _, name = line.partition(",")
        if memory.strip().replace(".", "").isdecimal():
            found.append(Gpu(name.strip(), round(float(memory) / 1024, 1)))
    return min(found, key=lambda gpu: gpu.memory_gb, default=None)


def peak_ram_gb() -> float | None:
    """Largest resident size of this process so far; None where the operating system does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":  # where the figure of `resource` begins with what the process was that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
