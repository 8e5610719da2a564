"""Which room may import which: the table below is the architecture, and every file is held to it.

`python tests/test_layers.py` prints the table with the number of imports along each arrow.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from helpers.limits import HANGS

import autoseg

ROOT = Path(autoseg.__file__).parent

# From the bottom to the top: each room, and the rooms above its line in this table that it imports. All may import ANYWHERE.
ANYWHERE = {"errors", "version"}
ROOMS: dict[str, str] = {
    "imaging": "",
    "system": "",
    "io": "imaging system",
    "plan": "imaging system",
    "splits": "system",
    "dataset": "imaging system io",
    "footprint": "system plan",
    "fingerprint": "imaging system io dataset",
    "evaluation": "imaging system io dataset",
    "nets": "system plan footprint",
    "preprocessing": "imaging system plan dataset",
    "planner": "imaging system plan splits dataset footprint fingerprint",
    "postprocessing": "imaging plan evaluation",
    "runs": "imaging system plan dataset postprocessing",
    "inference": "imaging system io plan dataset footprint nets preprocessing postprocessing runs",
    "training": ("imaging system io plan dataset footprint evaluation nets preprocessing postprocessing runs inference"),
    "pipeline": (
        "imaging system io plan splits dataset footprint fingerprint "
        "evaluation nets preprocessing planner postprocessing runs inference training"
    ),
    "api": "system plan splits dataset evaluation runs inference nets pipeline",
    "cli": "api system io plan splits dataset evaluation runs inference pipeline",
    "__main__": "cli",
}
TORCH = {"nets", "inference", "training"}
TORCH_FILES = {"pipeline.demo"}  # outside of these rooms


@cache
def files() -> dict[str, Path]:
    """Every file by its dotted name below autoseg: 'errors', 'io', 'io.images'."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names[""]  # the list of public names, which loads lazily and so may name every room
    return names


def room(name: str) -> str:
    """The room or top-level file of a dotted name, as it stands in the table."""
    return name.split(".")[0]


@cache
def imports(name: str) -> frozenset[str]:
    """Everything that a file imports, wherever in it: 'torch', 'numpy.random', 'autoseg.io.images'."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(files()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import; say where it comes from"
            assert node.module is not None
            modules |= {_imported(node.module, alias.name) for alias in node.names}
    return frozenset(modules)


def _imported(module: str, name: str) -> str:
    """`from autoseg.cli import options` imports a file, `from autoseg.io import read_image` a name."""
    return f"{module}.{name}" if f"{module}.{name}".removeprefix("autoseg.") in files() else module


def inside(name: str) -> set[str]:
    """Files of autoseg that a file imports."""
    return {i.removeprefix("autoseg.") for i in imports(name) if i.startswith("autoseg.")}


def edges() -> Counter[tuple[str, str]]:
    """How many files of one room import how many files of another."""
    return Counter(
        (room(name), room(other)) for name in files() for other in inside(name) if room(other) not in {room(name), *ANYWHERE}
    )


def test_every_room_is_in_the_table() -> None:
    assert set(ROOMS) | ANYWHERE == {room(name) for name in files()}


def test_the_arrows_are_those_of_the_table() -> None:
    wanted = {(name, other) for name, others in ROOMS.items() for other in others.split()}
    assert set(edges()) == wanted


def test_arrows_point_upwards_only() -> None:
    order = list(ROOMS)
    for name, others in ROOMS.items():
        for other in others.split():
            assert order.index(other) < order.index(name), f"{name} imports {other}, which stands below it"


def test_nothing_inside_is_taken_from_the_public_list() -> None:
    """The public list is for users; inside, an import names the module."""
    for name in files():
        assert "autoseg" not in imports(name), name


def test_no_cycle_among_files() -> None:
    """Between rooms the table forbids it. A room's __init__ gathers its files, so the files do not import it."""
    graph = {name: {o for o in inside(name) if o in files() and o != name} for name in files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_torch_is_imported_in_three_rooms_only() -> None:
    direct = {name for name in files() if any(i.split(".")[0] == "torch" for i in imports(name))}
    assert {room(name) for name in direct} <= TORCH
    for name in files():
        if room(name) not in TORCH and name not in TORCH_FILES:
            assert not {o for o in _eager(name) if room(o) in TORCH}, name


def _eager(name: str) -> set[str]:
    """Files of autoseg that are imported with this one: at the top of the file, not inside a function or for types only."""
    modules: set[str] = set()
    for node in ast.parse(files()[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("autoseg."):
            modules |= {_imported(node.module, alias.name).removeprefix("autoseg.") for alias in node.names}
    return modules


def test_all_other_files_load_without_torch() -> None:
    """The same, as Python sees it: one interpreter imports them all, and the faces of the three rooms."""
    plain = [name for name in sorted(files()) if room(name) not in TORCH and name not in TORCH_FILES] + ["inference", "training"]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    if 'torch' in sys.modules:\n        sys.exit(f'{name} loads torch')\n"
    done = subprocess.run(
        [sys.executable, "-c", code, *(f"autoseg.{name}" for name in plain)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not {name for name in files() if name.rpartition(".")[2] in {"utils", "util", "helpers", "common", "misc"}}


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files().items()}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


if __name__ == "__main__":
    for name in ROOMS:
        print(f"{name:15}", ", ".join(f"{other} {n}" for (source, other), n in sorted(edges().items()) if source == name))
