"""run.json of a training that goes on: its origin, and the scores of its best epoch."""

from __future__ import annotations

from autoseg.plan.plugin_names import used_plugins
from autoseg.runs.record import RunRecord
from autoseg.system.progress import number_of
from autoseg.training.run import TrainingRun


def interim_record(run: TrainingRun) -> RunRecord:
    """The record of a run that has not finished: no component rules, no score of a single structure.

    A landmark that some cases lack counts as present from `presence_threshold.DEFAULT_THRESHOLD` on.
    """
    job, state = run.job, run.state
    scored = [row for row in state.history if row.score is not None and row.score == state.best]
    return RunRecord(
        dataset=job.dataset,
        configuration=job.configuration,
        fold=job.fold,
        finished=False,
        seconds=run.elapsed,
        steps=state.step,
        validated_on=f"{number_of(state.n_interim_cases, 'case')} during the training",
        case_dice=scored[-1].case_dice if scored else None,
        structure_dice={},
        postprocess=(),
        pretrained=str(state.transfer) if state.transfer else None,
        step_s=run.step_s,
        mre=scored[-1].case_mre if scored else None,
        unit=job.unit,
        thresholds=dict.fromkeys(run.sometimes_absent),
        instead_of=job.instead_of,
        plugins=tuple(plugin.record for plugin in used_plugins(run.configuration)),
    )
