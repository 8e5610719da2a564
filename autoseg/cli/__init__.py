"""The command line: one thin file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import logging
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from autoseg.errors import AutosegError, UsageError
from autoseg.system.progress import log, stderr_handler
from autoseg.version import __version__

FIRST_STEPS = """autoseg: medical image segmentation and landmark localisation that configures itself.

A first run takes three commands:
  autoseg plan_and_preprocess -d DATASET     inspect the data, plan everything, prepare it
  autoseg train --time 10m                   train on what was planned last
  autoseg predict -i IMAGES -o MASKS         use the model that was trained last

No data at hand: autoseg demo. All commands: autoseg --help.
"""

SPINS = "1000"
"""How often threads of a convolution check whether the others are done before they sleep; libgomp reads it when torch is
imported. Beside any other busy program they steal the very core that they wait for: with this limit a training step takes a
fifth to a third less time there, and alone up to an eighth more (benchmarks/results/step.md, step_bf16.md). Whole trainings on
a free machine lose nothing, since their loader is such a program: in 45 s 169 and 164 steps, with ten times as many looks 166
and 158."""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name in ("plan_and_preprocess", "train", "predict", "evaluate", "postprocess", "fingerprint", "plan", "preprocess", "demo"):
    app.command(name)(import_module(f"autoseg.cli.{name}").run)


@app.callback(invoke_without_command=True)
def first_steps(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Medical image segmentation and landmark localisation that configures itself: plan, prepare, train, predict, evaluate."""
    if version:
        typer.echo(f"autoseg {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(FIRST_STEPS)


def main() -> None:
    """Run a command; turn errors into one line on stderr and an exit code.

    0 ok, 1 bug, 2 usage or data, 3 resources, 4 partly done, 130 interrupted.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    log.addHandler(stderr_handler())
    log.setLevel(logging.INFO)
    try:
        app()
    except AutosegError as error:
        print(f"autoseg: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        print(f"autoseg: error: out of memory; found: {error}; fix: --workers 1, or a machine with more", file=sys.stderr)
        sys.exit(3)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP):
            raise
        usage = UsageError("a file or folder cannot be used", file=error.filename, found=error.strerror, fix="give another path")
        print(f"autoseg: error: {usage}", file=sys.stderr)
        sys.exit(usage.exit_code)
    except SystemExit as stop:  # typer turns Ctrl-C into this
        if stop.code == 130:
            print("autoseg: interrupted; the same command continues", file=sys.stderr)
        raise
