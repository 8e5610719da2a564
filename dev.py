"""One-line entry points on a fresh machine: makes .venv beside this file, installs the exact versions of constraints.txt, runs.

python3 dev.py demo     the whole pipeline on a made-up dataset (further arguments go to `autoseg demo`)
python3 dev.py test     the test suite (further arguments go to pytest)
python3 dev.py check    formatting, lint and types
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".venv"
BIN = FOLDER / ("Scripts" if os.name == "nt" else "bin")


def run(*command: str) -> None:
    code = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=HERE, check=False).returncode
    if code:
        sys.exit(code)


def install() -> None:
    """Makes or updates .venv; a digest of what was asked for tells whether there is anything to do."""
    wanted = hashlib.sha256((HERE / "setup.cfg").read_bytes() + (HERE / "constraints.txt").read_bytes()).hexdigest()
    done = FOLDER / "installed"
    if done.is_file() and done.read_text() == wanted:
        return
    print("installing into .venv (once, a few minutes)", file=sys.stderr, flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    run("python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt", "-e", ".[dev]")
    done.write_text(wanted)


def main(task: str = "", *rest: str) -> None:
    if task not in ("demo", "test", "check"):
        sys.exit(__doc__)
    install()
    if task == "demo":
        run("autoseg", "demo", *rest)
    elif task == "test":
        run("python", "-m", "pytest", *rest)
    else:
        run("ruff", "check", ".")
        run("ruff", "format", "--check", ".")
        run("mypy")


if __name__ == "__main__":
    main(*sys.argv[1:])
