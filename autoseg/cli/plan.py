"""autoseg plan"""

from __future__ import annotations

from autoseg.cli import options as o


def run(
    dataset: o.DatasetOption = None,
    memory: o.MemoryOption = None,
    replan: o.ReplanOption = False,
    device: o.DeviceOption = "auto",
    root: o.RootOption = o.ROOT,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Decide everything from the fingerprint and write the plan, each choice with its reason."""
    from autoseg.progress import log
    from autoseg.stages import describe_plan, plan_dataset
    from autoseg.workspace import Workspace

    o.be_quiet(quiet)
    workspace = Workspace(root)
    about = o.open_named(dataset, workspace)
    made = plan_dataset(about, workspace, device, memory, replan)
    log.info("%s", describe_plan(made, workspace.about(about.name) / "plan.json"))
    o.show(made, json)
