"""autoseg predict"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options as o


def run(
    images: Annotated[Path, typer.Option("-i", "--images", help="Folder of images, or one image.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for label maps and landmarks.")],
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A run's folder, or the one above (all folds). Default: the last model.")
    ] = None,
    disable_tta: Annotated[bool, typer.Option("--disable_tta", help="No mirroring.")] = False,
    save_probabilities: Annotated[bool, typer.Option("--save_probabilities", help="Also write class probabilities.")] = False,
    landmarks_format: Annotated[
        str | None,
        typer.Option(
            "--landmarks-format", help="mrk.json, fcsv, json or csv. Default: mrk.json, which 3D Slicer opens; csv for pictures."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there already.")] = False,
    device: o.DeviceOption = "auto",
    root: o.RootOption = o.ROOT,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that read and write cases; 0 for none.")] = 2,
    quiet: o.QuietOption = False,
    json: o.JsonOption = False,
) -> None:
    """Predict label maps or landmarks, or both, for a folder of images."""
    from autoseg.dataset import images_in
    from autoseg.inference.model import load_model
    from autoseg.inference.predict import ending_of, outcome, predict
    from autoseg.nets.device import choose_device
    from autoseg.pipeline.workspace import Workspace
    from autoseg.runs.record import common_rules, model_folds
    from autoseg.system.progress import log

    o.be_quiet(quiet)
    ending = ending_of(landmarks_format) if landmarks_format else ""
    runs = model_folds(model or Workspace(root).last_model())
    loaded, records = load_model(runs, choose_device(device))
    log.info("model: %s", ", ".join(str(r) for r in runs))
    cases = images_in(images, len(loaded.plan.data.channels))
    rules, mirror = common_rules(records), not disable_tta
    report = predict(
        loaded,
        rules,
        cases,
        out,
        mirror=mirror,
        save_probabilities=save_probabilities,
        overwrite=overwrite,
        workers=workers,
        landmarks_ending=ending,
    )
    log.info("%s in %s", outcome(loaded.plan.data, report.done + report.skipped), out)
    o.show(report, json)
    o.finish(report.failures, out, report.done + report.skipped, "predict")
