"""Runs that were given up in their first steps, since another rung of the ladder learns more in the time that there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.system.files import write_text
from autoseg.system.records import read_record, to_json

FILE = "abandoned.json"


@dataclass(frozen=True)
class Abandoned:
    """abandoned.json in the folder of a run that was given up.

    Args:
        seconds: time limit of the training.
        device: kind of device, `cpu` or `cuda`.
        step_s: seconds that a step took.
        reason: the sentence that was logged.
        instead: the configuration that was trained instead.
    """

    seconds: float
    device: str
    step_s: float
    reason: str
    instead: str


def load_abandoned(run: Path) -> Abandoned | None:
    """Read abandoned.json; None where there is none."""
    path = run / FILE
    return read_record(Abandoned, path, fix="delete it") if path.is_file() else None


def save_abandoned(run: Path, abandoned: Abandoned) -> None:
    """Write abandoned.json."""
    write_text(run / FILE, to_json(abandoned))


def forget_abandoned(run: Path) -> None:
    """Delete abandoned.json, since a run begins in its place."""
    (run / FILE).unlink(missing_ok=True)
