"""autoseg train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    dataset: o.DatasetOption = None,
    configuration: o.ConfigurationOption = None,
    fold: Annotated[
        str, typer.Option("-f", "--fold", help="0 to 4, all (train on every case), or several, such as 0..4 or 0,2.")
    ] = "0",
    time: Annotated[str | None, typer.Option("--time", help="Wall-clock budget of each fold, such as 10m, 2h, 1h30m.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Budget in epochs. Default: that of the interrupted run, else the plan's.")
    ] = None,
    extend: Annotated[
        str | None, typer.Option("--extend", help="Train a finished run further, for so long (2h) or so many epochs (50).")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after so many epochs without a better score."),
    ] = None,
    pretrained: Annotated[
        Path | None, typer.Option("--pretrained", help="A run's folder: begin with its weights, as far as they fit.")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the weights of --pretrained as they are.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was trained before.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, sampling and augmentation.")] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same run gives the same numbers, interrupted or not. Saved once an epoch. With --epochs.",
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
    root: o.RootOption = o.ROOT,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that prepare batches; 0 for none.")] = 1,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Train a fold, or several in turn, and validate each on whole cases. Continues an interrupted run by itself.

    Ctrl-C, SIGTERM or a file named STOP in the run's folder end it early, validated and ready to use; a second Ctrl-C at once.

    On several GPUs: torchrun --nproc-per-node 2 -m autoseg train; each takes its share of the plan's batch. To end that early,
    use the file: after a signal torchrun gives the processes 30 s, and then kills them.
    """
    from autoseg.runs.budget import asked_budget
    from autoseg.runs.options import TrainingOptions, pretrained_weights
    from autoseg.splits.folds import parse_folds

    o.be_quiet(quiet)
    # before torch, which takes seconds to load
    folds = parse_folds(fold)
    options = TrainingOptions(
        budget=asked_budget(time, epochs, extend, restart),
        extend=extend is not None,
        patience=patience,
        pretrained=pretrained_weights(pretrained, freeze),
        seed=seed,
        threads=workers,
        deterministic=deterministic,
        tensorboard=tensorboard,
        compiled=compile,
    )

    from autoseg.nets.device import choose_device
    from autoseg.pipeline.plan import note_speed
    from autoseg.pipeline.preprocess import preprocess_dataset, preprocess_previous_stage
    from autoseg.pipeline.training import set_runs_aside, training_job
    from autoseg.pipeline.workspace import Workspace
    from autoseg.runs.record import record_table
    from autoseg.system.progress import log
    from autoseg.system.workers import Failure
    from autoseg.training.distributed import barrier, is_first, local_device, process_group, world_size
    from autoseg.training.tensorboard import check_tensorboard
    from autoseg.training.train import check_anew, train_folds

    if tensorboard:
        check_tensorboard()
    workspace = Workspace(root)
    about = o.open_named(dataset, workspace)
    failures: tuple[Failure, ...] = ()
    threads = 0 if workers == 0 else None
    place = choose_device(local_device(device))
    with process_group(place.place):
        if is_first():
            # at once if nothing has changed or been deleted
            failures = preprocess_dataset(about, workspace, configuration=configuration, workers=threads).failures
            failures += preprocess_previous_stage(about, workspace, configuration=configuration, workers=threads)
        barrier()
        tasks = [training_job(about, workspace, configuration, name) for name in folds]
        if restart:
            check_anew(tasks[0], options, place)
        if restart and is_first():  # nothing that is wrong above costs a run
            set_runs_aside([task.run for task in tasks], options.pretrained.model if options.pretrained else None)
        barrier()
        records = []
        for done in train_folds(tasks, options, place):
            task, record = done.task, done.record
            records.append(record)
            if not is_first():
                continue
            model = task.run if len(tasks) == 1 else task.run.parent  # all folds together
            workspace.remember_model(model)
            if not done.skipped and world_size() == 1:  # else another plan or machine may be behind it, or several GPUs
                note_speed(workspace, task.plan, task.configuration, place.place.type, record.step_s)
            if not json:
                typer.echo(record_table(record))
            log.info("model: %s", model)
        if not is_first():
            return
        o.show(records if len(tasks) > 1 else records[0], json)
        log.info("next: autoseg predict -i IMAGES -o MASKS")
        stages = (
            ("preprocess", "prepare") if tasks[0].previous_stage else ("preprocess",)
        )  # what a stage before said is prepared, too
        o.finish(failures, workspace.dataset_folder(about.name), len(tasks[0].training), *stages)
        if len(records) < len(tasks) and world_size() == 1:  # torchrun would tell of a crash
            raise typer.Exit(4)
