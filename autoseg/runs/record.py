"""What a finished training leaves for others to read: run.json, and which folds make up a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from autoseg.errors import UsageError
from autoseg.imaging.landmarks import Unit
from autoseg.postprocessing.component_rules import Rule
from autoseg.postprocessing.presence_threshold import DEFAULT_THRESHOLD
from autoseg.system.records import from_json


@dataclass(frozen=True)
class RunRecord:
    """run.json of a trained fold: where it came from, how it went, what to do with its predictions.

    `stopped` says why the training ended before its budget was spent, if it did; `pretrained` what it began with; `step_s` how
    many seconds a step took, in the part that was trained last if it was interrupted or extended; 0 where nothing is known, or
    where it was compiled.

    Landmarks: mean errors in `unit`, over the cases in which a landmark is present and was found; `mre` is the mean over
    landmarks. `missed` counts landmarks that are present and were not found, `extra` those that were found and are absent.
    `thresholds` holds, of landmarks that some cases lack, the probability from which they count as present; None where the cases
    that were validated on cannot tell.
    """

    dataset: str
    configuration: str
    fold: str
    finished: bool
    seconds: float
    steps: int
    validated_on: str
    case_dice: float | None
    structure_dice: dict[str, float | None]
    postprocess: tuple[Rule, ...]
    stopped: str | None = None
    pretrained: str | None = None
    step_s: float = 0.0
    mre: float | None = None
    unit: Unit = "mm"
    landmark_mre: dict[str, float | None] = field(default_factory=dict)
    missed: int = 0
    extra: int = 0
    thresholds: dict[str, float | None] = field(default_factory=dict)


def load_run(run: Path) -> RunRecord:
    """
    Raises:
        UsageError: the folder holds no trained fold.
    """
    path = run / "run.json"
    if not path.is_file():
        raise UsageError("no trained model", file=run, fix="autoseg train, or give -m the folder of a run (it holds run.json)")
    return from_json(RunRecord, path.read_text(encoding="utf-8"), path)


def is_finished(run: Path) -> bool:
    """Whether the folder holds a trained fold, be it that its training was stopped early."""
    return (run / "run.json").is_file() and load_run(run).finished


def model_folds(model: Path) -> tuple[Path, ...]:
    """The runs that `-m` means: one fold's folder, or all finished folds of a configuration's folder.

    Raises:
        UsageError: neither.
    """
    if (model / "run.json").is_file():
        return (model,)
    configurations = {p.parent for p in model.glob("*/fold_*")}
    above = configurations.pop() if len(configurations) == 1 else model  # a dataset's runs, if it has but one configuration
    folders = [p for p in sorted(above.glob("fold_*")) if p.suffix != ".previous"]  # those are runs that were started anew
    runs = tuple(p for p in folders if is_finished(p))
    if not runs:
        raise UsageError("no finished model in this folder", file=model, allowed="a run's folder (fold_0) or the folder above it")
    return runs


def common_rules(records: Sequence[RunRecord]) -> tuple[Rule, ...]:
    """The component rules that every fold chose, in the first fold's order."""
    return tuple(r for r in records[0].postprocess if all(r in other.postprocess for other in records))


def common_thresholds(records: Sequence[RunRecord], landmarks: Sequence[str]) -> tuple[float, ...]:
    """For each landmark the probability from which it counts as present: the mean over the folds that can tell, a half where none
    can, and 0 for what no case lacks."""

    def common(name: str) -> float:
        given = [r.thresholds[name] for r in records if name in r.thresholds]
        told = [value for value in given if value is not None]
        return fmean(told) if told else DEFAULT_THRESHOLD if given else 0.0

    return tuple(map(common, landmarks))


def record_table(record: RunRecord) -> str:
    """Scores of a fold as aligned text: a line a structure, a line a landmark, and the means."""
    lines = [f"{name:24} Dice {_number(dice, '.3f')}" for name, dice in record.structure_dice.items()]
    if lines or not record.landmark_mre:
        lines.append(f"{'mean':24} Dice {_number(record.case_dice, '.4f')}  ({record.validated_on})")
    lines += [f"{name:24} MRE {_number(mre, '.3g')} {record.unit}" for name, mre in record.landmark_mre.items()]
    if record.landmark_mre:
        counts = "".join(f", {n} {what}" for n, what in ((record.missed, "missed"), (record.extra, "extra")) if n)
        lines.append(f"{'mean':24} MRE {_number(record.mre, '.3g')} {record.unit}{counts}  ({record.validated_on})")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "--" if value is None else f"{value:{form}}"
