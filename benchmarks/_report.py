"""Reports of benchmarks: a Markdown page with the command, the machine and a table. Imports no torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from autoseg.system.files import write_text
from autoseg.version import __version__


def machine(*packages: str, device: str = "cpu") -> str:
    """'x86_64, 2 cores, torch 2.13.0', or with the GPU's name in place of the cores."""
    if device == "cpu":
        hardware = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    else:
        import torch

        hardware = torch.cuda.get_device_name()
    # the distribution of autoseg has another name
    versions = (f"{package} {__version__ if package == 'autoseg' else version(package)}" for package in packages)
    return ", ".join((hardware, *versions))


def require_nnunet() -> None:
    """Ends the benchmark before its first minute where nnU-Net is not installed."""
    if find_spec("nnunetv2") is None:
        raise SystemExit("nnU-Net 2 is not installed in this environment: pip install nnunetv2")


def write_report(
    title: str, command: str, machine: str, table: Sequence[str], *, notes: str = "", out: Path | None = None
) -> None:
    """Prints a report, and writes it to `out` if given.

    Args:
        command: as typed after `python benchmarks/`.
        table: lines of Markdown.
        notes: sentences between the command and the table.
    """
    text = "\n".join([f"# {title}", "", f"`python benchmarks/{command}` on {machine}. {notes}".rstrip(), "", *table, ""])
    print(text)
    if out:
        write_text(out, text)
