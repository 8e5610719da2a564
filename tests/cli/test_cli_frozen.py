"""What users type. A change of the table below breaks someone's script: make it on purpose."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import typer
from helpers.limits import HANGS
from typer.testing import CliRunner

from autoseg import __version__
from autoseg.cli import FIRST_STEPS, app, main

D = ("dataset", "-d --dataset", False)
C = ("configuration", "-c --configuration", False)
ROOT = ("root", "--root", False)
WORKERS = ("workers", "--workers", False)
DEVICE = ("device", "--device", False)
MEMORY = ("memory", "--memory", False)
FAMILY = ("family", "--family", False)
PLAN_TIME = ("time", "--time", False)
RECIPE = ("recipe", "--recipe", False)
REPLAN = ("replan", "--replan", False)
SET = ("setting", "--set", False)
PLUGIN = ("plugin", "--plugin", False)
QUIET = ("quiet", "-q --quiet", False)
JSON = ("json", "--json", False)
MODEL = ("model", "-m --model", False)

COMMANDS = {
    "plan_and_preprocess": {D, C, MEMORY, PLAN_TIME, FAMILY, RECIPE, REPLAN, SET, PLUGIN, DEVICE, ROOT, WORKERS, QUIET, JSON},
    "train": {
        *(D, C, SET, PLUGIN, DEVICE, ROOT, WORKERS, QUIET, JSON),
        ("fold", "-f --fold", False),
        ("time", "--time", False),
        ("epochs", "--epochs", False),
        ("extend", "--extend", False),
        ("patience", "--patience", False),
        ("pretrained", "--pretrained", False),
        ("freeze", "--freeze", False),
        ("restart", "--restart", False),
        ("seed", "--seed", False),
        ("deterministic", "--deterministic", False),
        ("tensorboard", "--tensorboard", False),
        ("compile", "--compile --no-compile", False),
    },
    "predict": {
        *(MODEL, PLUGIN, DEVICE, ROOT, WORKERS, QUIET, JSON),
        ("images", "-i --images", True),
        ("out", "-o --out", True),
        ("disable_tta", "--disable_tta", False),
        ("save_probabilities", "--save_probabilities", False),
        ("landmarks_format", "--landmarks-format", False),
        ("overwrite", "--overwrite", False),
    },
    "evaluate": {
        *(D, ROOT, WORKERS, QUIET, JSON),
        ("predictions", "-p --predictions", True),
        ("references", "-r --references", False),
        ("out", "-o --out", False),
        ("tolerance", "--tolerance", False),
        ("radius", "--radius", False),
        ("images", "-i --images", False),
    },
    "postprocess": {MODEL, ROOT, WORKERS, QUIET, ("masks", "-i --masks", True), ("out", "-o --out", True)},
    "fingerprint": {D, ROOT, WORKERS, QUIET, JSON},
    "plan": {D, MEMORY, PLAN_TIME, FAMILY, RECIPE, REPLAN, SET, PLUGIN, DEVICE, ROOT, QUIET, JSON},
    "preprocess": {D, C, ROOT, WORKERS, QUIET, JSON},
    "demo": {DEVICE, QUIET, JSON, ("folder", "-o --out", False), ("time", "--time", False)},
}
ARGUMENTS = {"plan": [("words", False)]}  # what is typed without a flag before it
GROUP = typer.main.get_command(app)


def test_the_commands_in_the_order_of_the_pipeline() -> None:
    assert list(GROUP.commands) == list(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command(command: str) -> None:
    parameters = GROUP.commands[command].params  # type: ignore[attr-defined]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    assert [(p.name, p.required) for p in arguments] == ARGUMENTS.get(command, [])
    options = [p for p in parameters if p not in arguments]
    assert {(p.name, " ".join([*p.opts, *p.secondary_opts]), p.required) for p in options} == COMMANDS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_explains_itself(command: str) -> None:
    described = GROUP.commands[command]  # type: ignore[attr-defined]
    assert described.help
    assert all(p.help for p in described.params)
    long, short = (CliRunner().invoke(app, [command, option]) for option in ("--help", "-h"))
    assert (long.exit_code, long.output) == (0, short.output)


def test_one_short_flag_means_one_thing() -> None:
    """-d, -c, -f, -m, -q everywhere; -i and -o are whatever goes in and comes out."""
    meaning: dict[str, set[str]] = {}
    for options in COMMANDS.values():
        for name, flags, _ in options:
            for flag in flags.split():
                if flag.startswith("-") and not flag.startswith("--"):
                    meaning.setdefault(flag, set()).add(name)
    assert {flag for flag, names in meaning.items() if len(names) > 1} <= {"-i", "-o"}


def test_alone_it_shows_the_first_three_commands() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0
    assert result.stdout.strip() == FIRST_STEPS.strip()
    first = [line.split()[1] for line in FIRST_STEPS.splitlines() if line.startswith("  autoseg ")]
    assert first == list(COMMANDS)[:3]


def autoseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m autoseg` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "autoseg", *arguments]
        path = {"PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}
        return subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, timeout=HANGS, check=False)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys\nfrom autoseg.cli import app\ntry:\n    app(['--help'])\nfinally:\n"
    code += "    sys.stderr.write(','.join({'torch', 'numpy', 'SimpleITK', 'scipy'} & set(sys.modules)))"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(command in done.stdout for command in COMMANDS)
    assert time.monotonic() - began < 5  # 0.2 s on an idle machine


def test_no_such_dataset() -> None:
    done = autoseg("plan_and_preprocess", "-d", "Task99")
    assert done.returncode == 2
    assert done.stderr.startswith("autoseg: error: no dataset 'Task99'; found: no dataset at all; allowed: a path")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_unknown_command() -> None:
    done = autoseg("trian")
    assert done.returncode == 2
    assert "No such command 'trian'" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError("3 GB"), 3, "autoseg: error: out of memory; found: 3 GB; fix: --workers 1"),
        (KeyboardInterrupt(), 130, "autoseg: interrupted; the same command continues"),
    ],
)
def test_exit_codes_of_main(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = typer.Typer(pretty_exceptions_enable=False)

    @broken.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr("autoseg.cli.app", broken)
    monkeypatch.setattr("sys.argv", ["autoseg"])
    monkeypatch.setattr("logging.Logger.addHandler", lambda self, handler: None)  # pytest keeps the logger
    monkeypatch.setattr("logging.Logger.setLevel", lambda self, level: None)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("terminal", "shown"), [(True, "\r\x1b[Khello"), (False, "hello")])
def test_messages_take_the_place_of_a_line_that_moves(monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: str) -> None:
    handlers: list[logging.Handler] = []
    monkeypatch.setattr("autoseg.cli.app", lambda: None)
    monkeypatch.setattr("logging.Logger.addHandler", lambda self, handler: handlers.append(handler))
    monkeypatch.setattr("logging.Logger.setLevel", lambda self, level: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    main()
    assert handlers[0].format(logging.makeLogRecord({"msg": "hello"})) == shown


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"autoseg {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fingerprint", "-d", "a" * 300),
        ("fingerprint", "-d", "a", "--root", "a" * 300),
        ("postprocess", "-i", "a", "-o", "b", "-m", "a" * 300),
        ("plan", "show", "a/" * 5000),
    ],
)
def test_paths_that_are_too_long_are_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = autoseg(*arguments)
    assert done.returncode == 2
    assert re.match(r"autoseg: error: .*(is no path|cannot be used|has no|no )", done.stderr)
    assert "Traceback" not in done.stderr


def test_what_may_not_be_read_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "a\x1bb")

    monkeypatch.setattr("autoseg.cli.app", refuse)
    monkeypatch.setattr(logging.getLogger("autoseg"), "handlers", [])  # the program's own goes away with the test
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = "autoseg: error: a file or folder cannot be used; file: a\\x1bb; found: Permission denied; fix: give another path\n"
    assert capsys.readouterr().err == error
