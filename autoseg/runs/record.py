"""The record of a training, run.json, and the folds that make up a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from autoseg.dataset import case_name
from autoseg.dataset.folders import channel_number
from autoseg.errors import PlanError, UsageError
from autoseg.imaging.landmarks import Unit
from autoseg.plan.plugins import PluginRecord
from autoseg.postprocessing.component_rules import Rule
from autoseg.postprocessing.presence_threshold import DEFAULT_THRESHOLD
from autoseg.system.progress import log
from autoseg.system.records import read_record

_WAY_OUT = "undo the last edit, or train again with --restart"
FOLD_ALL = "fold_all"  # folder of the run that is trained on every case


@dataclass(frozen=True)
class RunRecord:
    """run.json of a fold: its origin, its course and the rules for its predictions.

    Args:
        finished: False from the first epoch until the final validation, and while it is extended.
        stopped: reason why the training ended before its budget was spent, if it did.
        pretrained: source of the first weights, if there was one.
        step_s: seconds per step, in the part that was trained last if training was interrupted or
            extended; 0 where this is unknown or the network was compiled.
        mre: mean over landmarks of `landmark_mre`.
        unit: of the landmarks' errors.
        landmark_mre: mean errors over the cases in which a landmark is present and was predicted.
        missed: count of landmarks that are present and were not predicted.
        extra: count of landmarks that are absent and were predicted.
        thresholds: for landmarks that are absent in some cases, the probability from which they count
            as present; None where the validation cases cannot tell.
        instead_of: the rung of the plan's ladder that was given up in its first steps, and why.
        plugins: the files of users whose losses, blocks or augmentations were used.
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
    instead_of: str | None = None
    plugins: tuple[PluginRecord, ...] = ()


def load_run(run: Path) -> RunRecord:
    """Read the record of a run's folder.

    Raises:
        UsageError: the folder holds no trained fold.
        PlanError: run.json is malformed, or has a number that no training has.
    """
    path = run / "run.json"
    if not path.is_file():
        raise UsageError("no trained model", file=run, fix="autoseg train, or give -m the folder of a run (it holds run.json)")
    record = read_record(RunRecord, path, fix=_WAY_OUT)
    _check(record, path)
    return record


def _check(record: RunRecord, path: Path) -> None:
    """Check the numbers of a record, which decide what predictions keep.

    Raises:
        PlanError: one that no training has; names its key.
    """
    counts = {"seconds": record.seconds, "steps": record.steps, "step_s": record.step_s, "missed": record.missed}
    counts |= {"extra": record.extra}
    shares = {"case_dice": record.case_dice, **{f"structure_dice.{k}": v for k, v in record.structure_dice.items()}}
    shares |= {f"thresholds.{k}": v for k, v in record.thresholds.items()}
    faults = [(key, value, "0 or more") for key, value in counts.items() if value < 0]
    faults += [(key, value, "0…1, or null") for key, value in shares.items() if value is not None and not 0 <= value <= 1]
    for key, value, allowed in faults:
        raise PlanError(f"'{key}' cannot be used", file=path, found=value, allowed=allowed, fix=_WAY_OUT)


def is_finished(run: Path) -> bool:
    """Tell if the folder holds a trained fold, even if its training was stopped early."""
    return (run / "run.json").is_file() and load_run(run).finished


def weights_file(run: Path, record: RunRecord) -> Path:
    """The weights that predict: the last ones of a finished fold, the best so far of one under way, which are its last
    where none of its epochs has a score.
    """
    best = run / "best.safetensors"
    return best if not record.finished and best.is_file() else run / "last.safetensors"


def has_numbered_cases(run: Path) -> bool:
    """Tell if a case that the run was validated on is called like a channel file, such as 'scan_0003'."""
    return any(channel_number(case_name(path)) for path in (run / "validation").glob("*_[0-9][0-9][0-9][0-9].*"))


def model_folds(model: Path) -> tuple[Path, ...]:
    """Runs that make up a model: one fold's folder, or the finished folds of a configuration's folder; those under way if
    none is finished.

    fold_all is left out, with a note, where there are numbered ones: it has learnt from the cases that they are validated on.

    Args:
        model: a run's folder, the folder above it, or a dataset's if that has one configuration.

    Raises:
        UsageError: no run in it that has come to the end of an epoch.
    """
    if (model / "run.json").is_file():
        return (model,)
    configurations = {p.parent for p in model.glob("*/fold_*")}
    parent = configurations.pop() if len(configurations) == 1 else model  # a dataset's runs, if it has but one configuration
    folders = [p for p in sorted(parent.glob("fold_*")) if p.suffix != ".previous"]  # runs set aside by --restart
    trained = [p for p in folders if (p / "run.json").is_file()]
    runs = tuple(p for p in trained if is_finished(p)) or tuple(trained)
    numbered = tuple(p for p in runs if p.name != FOLD_ALL)
    if numbered and len(numbered) < len(runs):
        log.warning("note: %s is left out beside the numbered folds; -m %s takes it", FOLD_ALL, parent / FOLD_ALL)
        return numbered
    if not runs:
        begun = [p for p in (model, *folders) if (p / "last.safetensors").is_file()]
        aside = next((p for p in (Path(f"{model}.previous"), *sorted(parent.glob("fold_*.previous"))) if is_finished(p)), None)
        raise UsageError(
            "no model in this folder",
            file=model,
            found="a training that has not come to the end of its first epoch" if begun else None,
            allowed="a run's folder (fold_0) or the folder above it",
            fix=f"-m {aside} takes the one that --restart has set aside" if aside else None,
        )
    return runs


def common_rules(records: Sequence[RunRecord]) -> tuple[Rule, ...]:
    """The component rules that every fold chose, in the first fold's order."""
    return tuple(r for r in records[0].postprocess if all(r in other.postprocess for other in records))


def common_thresholds(records: Sequence[RunRecord], landmarks: Sequence[str]) -> tuple[float, ...]:
    """For each landmark the probability from which it counts as present.

    The mean over the folds whose cases can tell, `DEFAULT_THRESHOLD` where none can, and 0 for a
    landmark that is present in all cases.
    """

    def common(name: str) -> float:
        thresholds = [r.thresholds[name] for r in records if name in r.thresholds]
        decided = [threshold for threshold in thresholds if threshold is not None]
        return fmean(decided) if decided else DEFAULT_THRESHOLD if thresholds else 0.0

    return tuple(map(common, landmarks))


def record_scores(record: RunRecord) -> str:
    """Mean scores of a fold in words: 'fold 0: Dice 0.882 of 42 cases not trained on'."""
    scores = [f"Dice {_number(record.case_dice, '.4f')}"] if record.structure_dice or not record.landmark_mre else []
    scores += [f"MRE {_number(record.mre, '.3g')} {record.unit}"] if record.landmark_mre else []
    return f"fold {record.fold}: {', '.join(scores)} of {record.validated_on}"


def record_table(record: RunRecord) -> str:
    """Scores of a fold as aligned text: one line per structure and per landmark, and the means."""
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
