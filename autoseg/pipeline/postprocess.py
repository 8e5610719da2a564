"""A model's component rules applied to a folder of label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset import PROBABILITIES, Case, case_name, check_output_folder, images_in, output_path
from autoseg.errors import UsageError
from autoseg.imaging.image import LabelMap
from autoseg.io import read_label_map, write_label_map
from autoseg.plan import load_plan
from autoseg.postprocessing.component_rules import apply_rules
from autoseg.runs.record import common_rules, load_run, model_folds
from autoseg.system.workers import CaseReport, CaseRun


@dataclass(frozen=True)
class PostprocessReport(CaseReport):
    """Result of postprocessing a folder: `done` label maps were written."""

    done: int


def postprocess_folder(masks: Path, out: Path, *, model: Path, workers: int | None = None) -> PostprocessReport:
    """Write a cleaned copy of every label map of `masks` to `out` under the same name; probabilities are left alone.

    Args:
        model: a run's folder, or the folder above several folds.

    Raises:
        UsageError: no model, or one that has not finished, no label map, or `out` is where the label maps are.
    """
    runs = model_folds(model)
    records = [load_run(run) for run in runs]
    if not all(record.finished for record in records):
        raise UsageError(
            "component rules are chosen at the end of a training", file=model, fix="run the same train command again"
        )
    rules = common_rules(records)
    labels = load_plan(runs[0] / "plan.json").data.labels
    cases = [c for c in images_in(masks, 1) if not c.name.endswith(PROBABILITIES)]
    check_output_folder(cases, out)

    def work(case: Case) -> None:
        source = case.images[0]
        label_map = read_label_map(source, labels)
        cleaned = LabelMap(apply_rules(label_map.data, rules, labels), label_map.grid, labels)
        write_label_map(output_path(out, Case(case_name(source), case.images, None)), cleaned, like=source)

    run = CaseRun(work, cases, "postprocess", workers=workers)
    return PostprocessReport(len(run.finish()), failures=run.failures)
