"""training_cases.json of a run: the cases that it has learnt from, whose predictions say nothing about new ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from autoseg.dataset import Case
from autoseg.system.files import write_text
from autoseg.system.records import read_record, to_json

FILE = "training_cases.json"


def image_sizes(case: Case) -> str:
    """Bytes of the files of a case's image; empty where one is missing."""
    return " ".join(str(path.stat().st_size) for path in case.images) if all(path.is_file() for path in case.images) else ""


def save_training_cases(run: Path, cases: Iterable[Case]) -> None:
    """Record what a run learns from, besides what it has learnt from before."""
    write_text(run / FILE, to_json(load_training_cases([run]) | {case.name: image_sizes(case) for case in cases}))


def load_training_cases(runs: Collection[Path]) -> dict[str, str]:
    """Sizes of the images that runs have learnt from, by the names of their cases; none of runs of earlier versions."""
    files = [run / FILE for run in runs if (run / FILE).is_file()]
    return {
        name: s
        for file in files
        for name, s in read_record(dict[str, str], file, fix="delete it: then nobody is told of training cases").items()
    }


def trained_on(runs: Collection[Path], cases: Iterable[Case]) -> list[str]:
    """Names of the cases that runs have learnt from: those of the same name, with images of the same size."""
    sizes = load_training_cases(runs)
    return [case.name for case in cases if sizes.get(case.name) and sizes[case.name] == image_sizes(case)]
