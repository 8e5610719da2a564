"""The command `autoseg plan_and_preprocess`."""

from __future__ import annotations

from autoseg.cli import options as o


def run(
    *,
    dataset: o.DatasetOption = None,
    configuration: o.ConfigurationOption = None,
    memory: o.MemoryOption = None,
    time: o.TimeOption = None,
    family: o.FamilyOption = None,
    recipe: o.RecipeOption = None,
    replan: o.ReplanOption = False,
    device: o.DeviceOption = "auto",
    setting: o.SetOption = None,
    plugin: o.PluginOption = None,
    root: o.RootOption = o.ROOT,
    workers: o.WorkersOption = None,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Inspect a dataset, plan everything, and prepare the cases: fingerprint, plan and preprocess in one."""
    from autoseg.dataset.reading import CaseReader
    from autoseg.pipeline.datasets import open_named_dataset
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.plan import describe_plan, plan_dataset
    from autoseg.pipeline.preprocess import preprocess_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.system.progress import log, number_of

    o.be_quiet(quiet)
    settings = o.settings_and_plugins(setting, plugin)
    workspace = Workspace(root)
    opened = open_named_dataset(dataset, workspace)
    reader = CaseReader(opened)
    fingerprinted = fingerprint_dataset(opened, workspace, workers=workers, reader=reader)
    options = o.plan_options(device, memory, family, time, recipe)
    made = plan_dataset(opened, workspace, options, replan, settings=settings, configuration=configuration)
    log.info("%s", describe_plan(made, workspace.dataset_folder(opened.name) / "plan.json", opened.unit))
    report = preprocess_dataset(opened, workspace, configuration=configuration, workers=workers, reader=reader)
    done, kept, removed = len(report.done), len(report.reused), len(report.removed)
    log.info("%s prepared, %d kept, %d removed; next: autoseg train", number_of(done, "case"), kept, removed)
    o.show(made, json)
    failures = (*fingerprinted.failures, *report.failures)
    o.finish(failures, workspace.dataset_folder(opened.name), done + kept, "fingerprint", "preprocess")
