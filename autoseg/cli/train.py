"""autoseg train"""

from __future__ import annotations

from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    dataset: o.DatasetOption = None,
    configuration: o.ConfigurationOption = None,
    fold: Annotated[str, typer.Option("-f", "--fold", help="0 to 4, or all (train on every case).")] = "0",
    time: Annotated[str | None, typer.Option("--time", help="Wall-clock budget, such as 10m, 2h, 1h30m.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Budget in epochs. Default: that of the interrupted run, else the plan's.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was trained before.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, sampling and augmentation.")] = 0,
    device: o.DeviceOption = "auto",
    root: o.RootOption = o.ROOT,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that prepare batches; 0 for none.")] = 1,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Train a fold and validate it on whole cases. Continues an interrupted run by itself."""
    from autoseg.batch import Failure
    from autoseg.device import choose_device
    from autoseg.progress import log
    from autoseg.schedule import Budget, parse_duration
    from autoseg.stages import forget_run, prepare_dataset, prepare_stage_before
    from autoseg.task import train_task
    from autoseg.train import train
    from autoseg.workspace import Workspace

    o.be_quiet(quiet)
    workspace = Workspace(root)
    about = o.open_named(dataset, workspace)
    failures: list[Failure] = []
    threads = 0 if workers == 0 else None
    prepare_dataset(about, workspace, configuration, failures, threads)  # at once if nothing has changed or been deleted
    prepare_stage_before(about, workspace, configuration, failures, threads)
    task = train_task(about, workspace, configuration, fold, seed, workers)
    budget = Budget(parse_duration(time) if time else None, epochs) if time or epochs is not None else None
    place = choose_device(device)
    if restart:  # nothing that is wrong above costs a run
        forget_run(task.run)
    record = train(task, budget, place)
    workspace.remember_model(task.run)
    o.show(record, json)
    if not json:
        for name, dice in record.structure_dice.items():
            typer.echo(f"{name:24} Dice {'--' if dice is None else f'{dice:.3f}'}")
        mean = "--" if record.case_dice is None else f"{record.case_dice:.4f}"
        typer.echo(f"{'mean':24} Dice {mean}  ({record.validated_on})")
    log.info("model: %s", task.run)
    log.info("next: autoseg predict -i IMAGES -o MASKS")
    o.finish(failures, workspace.about(about.name), len(task.training), "preprocess")
