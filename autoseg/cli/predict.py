"""The command `autoseg predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    *,
    images: Annotated[Path, typer.Option("-i", "--images", help="Folder of images, or one image.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for label maps and landmarks.")],
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A run's folder, or the one above (all folds). Default: the last model.")
    ] = None,
    disable_tta: Annotated[bool, typer.Option("--disable_tta", help="Switch off test-time mirroring.")] = False,
    save_probabilities: Annotated[bool, typer.Option("--save_probabilities", help="Also write class probabilities.")] = False,
    landmarks_format: Annotated[
        str | None,
        typer.Option(
            "--landmarks-format", help="mrk.json, fcsv, json or csv. Default: mrk.json, which 3D Slicer opens; csv for pictures."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing predictions.")] = False,
    device: o.DeviceOption = "auto",
    plugin: o.PluginOption = None,
    root: o.RootOption = o.ROOT,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that read and write cases; 0 for none.")] = 2,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Predict label maps, landmarks or both for a folder of images."""
    from autoseg.api import load_model
    from autoseg.inference.predict import describe_outcome
    from autoseg.io.landmark_files import landmarks_format_ending
    from autoseg.system.progress import log

    o.be_quiet(quiet)
    if landmarks_format:
        landmarks_format_ending(landmarks_format)  # refused before the model is loaded
    o.settings_and_plugins(None, plugin)
    trained = load_model(model, device=device, root=root)
    log.info("model: %s", ", ".join(str(run) for run in trained.runs))
    report = trained.predict_folder(
        images,
        out,
        mirror=not disable_tta,
        save_probabilities=save_probabilities,
        landmarks_format=landmarks_format,
        overwrite=overwrite,
        workers=workers,
    )
    log.info("%s in %s", describe_outcome(trained.plan.data, report.done + report.skipped), out)
    o.show(report, json)
    o.finish(report.failures, out, report.done + report.skipped, "predict")
