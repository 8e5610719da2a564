"""Options that several commands share, and how commands begin and end."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoseg.errors import UsageError, printable

if TYPE_CHECKING:
    from autoseg.pipeline.plan import PlanOptions
    from autoseg.system.workers import Failure

DatasetOption = Annotated[
    str | None,
    typer.Option("-d", "--dataset", help="Dataset: a path, a folder name, Task01 or 1. Default: the dataset planned last."),
]
RootOption = Annotated[Path, typer.Option("--root", help="Folder for everything autoseg writes.")]
ConfigurationOption = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--configuration",
        help="Configuration of the plan. Default: the plan's default_configuration; train --time chooses from its ladder.",
    ),
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=0, help="Threads; 0 for none. Default: one per core.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]


def _gigabytes(text: str) -> float:
    """Read the number of --memory.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise UsageError("--memory must be a number of GB", found=text, allowed="such as 8 or 11.5") from None


MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory",
        parser=_gigabytes,
        metavar="GB",
        help="GB that training may use. Default: the GPU's memory, or 8 on a CPU.",
    ),
]
TimeOption = Annotated[
    str | None,
    typer.Option(
        "--time", help="Time available for training, such as 10m or 2h; number of steps, batch size and width follow from it."
    ),
]
FamilyOption = Annotated[str | None, typer.Option("--family", help="Family of networks: plain or residual. Default: plain.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Training recipe: adamw_constant, adamw_cosine or sgd_poly (nnU-Net's). Default: adamw_constant."
    ),
]
ReplanOption = Annotated[bool, typer.Option("--replan", help="Replace the existing plan; your edits are carried over.")]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file that registers a loss, block, augmentation or planner rule; repeatable."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a value of the plan, such as training.loss=dice; repeatable."),
]
RunSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a value of the plan for this run only; repeatable."),
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
ROOT = Path("autoseg_work")
_OBEYED = re.compile(
    "[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)  # what JSON may hold and a terminal obeys, or cannot show


def be_quiet(quiet: bool) -> None:
    """Log warnings and errors only, if -q was given."""
    if quiet:
        logging.getLogger("autoseg").setLevel(logging.WARNING)


def settings_and_plugins(settings: Sequence[str] | None, plugins: Sequence[Path] | None) -> dict[str, Any]:
    """Load the files of --plugin, and read what --set asks for."""
    if not (settings or plugins):
        return {}
    from autoseg.pipeline.plugins import load_plugins
    from autoseg.plan.settings import parse_settings

    values = parse_settings(settings or ())
    load_plugins(plugins or ())
    return values


def plan_options(device: str, memory: float | None, family: str | None, time: str | None, recipe: str | None) -> PlanOptions:
    """Collect the options of a planning command."""
    from autoseg.pipeline.plan import PlanOptions
    from autoseg.runs.budget import parse_duration

    return PlanOptions(device, memory, family, None if time is None else parse_duration(time), recipe)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print text that names of files may be part of; its characters that a terminal would obey are shown."""
    typer.echo(printable(text.rstrip("\n")), err=to_stderr)


def show(record: Any, as_json: bool) -> None:
    """Print a record as JSON if --json was given."""
    if as_json:
        from autoseg.system.records import to_json

        typer.echo(_OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", to_json(record)), nl=False)


def finish(failures: Sequence[Failure], folder: Path, done: int, *stages: str) -> None:
    """Write failed.csv, name the first failures, and exit with 4 if something was done, else with 2."""
    from autoseg.system.progress import number_of
    from autoseg.system.workers import FAILED, write_failures

    write_failures(folder / FAILED, failures, stages)
    if not failures:
        return
    for failure in failures[:5]:
        say(f"failed: {failure.reason}", to_stderr=True)
    more = f" ({len(failures) - 5} more)" if len(failures) > 5 else ""
    say(f"{number_of(len(failures), 'case')} failed{more}: see {folder / FAILED}", to_stderr=True)
    raise typer.Exit(4 if done else 2)
