"""The command `autoseg train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    *,
    dataset: o.DatasetOption = None,
    configuration: o.ConfigurationOption = None,
    fold: Annotated[
        str, typer.Option("-f", "--fold", help="0 to 4, all (train on every case), or several, such as 0..4 or 0,2.")
    ] = "0",
    time: Annotated[str | None, typer.Option("--time", help="Wall-clock time for each fold, such as 10m, 2h, 1h30m.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Number of epochs. Default: that of the interrupted run, else the plan's.")
    ] = None,
    extend: Annotated[
        str | None, typer.Option("--extend", help="Train a finished run further: for a time (2h) or a number of epochs (50).")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after this many epochs without a better score."),
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option("--pretrained", help="Start from the weights of this run's folder, as far as they fit.")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Do not train the weights that --pretrained provides.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Start anew; an earlier run is moved to <fold>.previous.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, sampling and augmentation.")] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same run gives the same numbers, interrupted or not; saved once an epoch. Needs --epochs.",
        ),
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write the curve for TensorBoard.")] = False,
    compile: Annotated[
        bool | None,
        typer.Option(
            help="Let torch compile the network: a minute or more at first; then steps are shorter on a GPU, but not on a CPU.",
            show_default="on a GPU, with 20 minutes or 20000 steps to go",
        ),
    ] = None,
    device: o.DeviceOption = "auto",
    setting: o.RunSetOption = None,
    plugin: o.PluginOption = None,
    root: o.RootOption = o.ROOT,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that prepare batches; 0 for none.")] = 1,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Train one fold or several in turn, and validate each on whole cases. An interrupted run continues by itself.

    Ctrl-C, SIGTERM or a file named STOP in the run's folder ends it early, validated and ready to use; a second Ctrl-C at once.

    On several GPUs: torchrun --nproc-per-node 2 -m autoseg train; each takes its share of the plan's batch. To end that early,
    use the STOP file: after a signal, torchrun gives the processes 30 s and then kills them.
    """
    from autoseg.pipeline.datasets import open_named_dataset
    from autoseg.pipeline.training import train_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.runs.budget import budget_from_options
    from autoseg.runs.options import TrainingOptions, pretrained_from_options
    from autoseg.runs.record import RunRecord, record_table
    from autoseg.splits.folds import parse_folds
    from autoseg.system.progress import log

    o.be_quiet(quiet)
    settings = o.settings_and_plugins(setting, plugin)
    workspace = Workspace(root)
    folds = parse_folds(fold)
    options = TrainingOptions(
        budget=budget_from_options(time, epochs, extend, restart),
        extend=extend is not None,
        patience=patience,
        pretrained=pretrained_from_options(pretrained, freeze),
        seed=seed,
        threads=workers,
        deterministic=deterministic,
        tensorboard=tensorboard,
        compiled=compile,
    )

    def show_fold(model: Path, record: RunRecord) -> None:
        if not json:
            o.say(record_table(record))
        log.info("model: %s", model)

    opened = open_named_dataset(dataset, workspace)
    report = train_dataset(
        opened,
        workspace,
        configuration=configuration,
        folds=folds,
        options=options,
        device=device,
        restart=restart,
        settings=settings,
        on_fold=show_fold,
    )
    if report is None:
        return
    o.show(report.records if len(folds) > 1 else report.record, json)
    log.info("next: autoseg predict -i IMAGES -o MASKS")
    o.finish(report.failures, workspace.dataset_folder(opened.name), report.n_cases, *report.stages)
    if report.n_untrained:
        raise typer.Exit(4)
