"""Memory that is freed and asked for again is the same memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.limits import HANGS

from autoseg.system import allocator

FAULTS = """
import resource, sys
import numpy as np
from autoseg.system.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(64 << 20, 1, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Of the fourth block of 64 MB that a process fills and frees."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=HANGS)
    return int(done.stdout)


@pytest.mark.skipif(allocator.platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_used_again() -> None:
    assert page_faults("keep") < 10 < page_faults("give back")


RESIDENT = """
import numpy as np
from pathlib import Path
from autoseg.system.allocator import give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024

keep_freed_memory()
before = resident()
np.full(256 << 20, 1, dtype=np.uint8)
kept = resident() - before
give_back_freed_memory()
print(kept >> 20, (resident() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux" or allocator.platform.libc_ver()[0] != "glibc", reason="another system")
def test_kept_memory_is_returned_before_free_memory_is_counted() -> None:
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True, timeout=HANGS)
    kept, left = map(int, done.stdout.split())
    assert kept >= 250
    assert left < 20


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()
    allocator.give_back_freed_memory()
