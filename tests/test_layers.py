"""Who may import whom: the table below is the architecture, and the modules are held to it."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import autoseg

ROOT = Path(autoseg.__file__).parent

# A module imports only from layers above its own line; a package stands here as one, its files may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("allocator", "errors", "machine", "sides"),
    ("names",),
    ("bootstrap", "files", "geometry", "labels", "landmarks", "predictability", "presence", "progress", "records", "tables"),
    ("batch", "heatmaps", "image", "lock", "parallel", "placement", "plan", "workspace"),
    (
        *("augment", "components", "device", "edits", "footprint", "history", "io", "losses", "nets"),
        *("landmark_facts", "landmark_metrics", "metrics"),
        *("normalize", "notes", "optimizers", "patients", "resample", "schedule", "stopping", "throughput", "windows"),
    ),
    (
        *("checkpoint", "compiling", "dataset", "events", "facts", "landmark_maps", "landmark_summary", "phantom"),
        *("postprocess", "prepare"),
        *("misread", "repeatable", "spots", "store", "symmetry"),
    ),
    ("arrangement", "claim", "laterality", "pairs"),
    ("scan",),
    ("fingerprint", "folds", "preprocess", "runs", "sampling"),
    ("cascade", "cleanup", "evaluate", "evaluate_landmarks", "model", "nnunet_splits", "planner", "pretrained"),
    ("task", "validation"),
    ("room", "running"),
    ("interim", "rescue"),
    ("reporting", "step"),
    ("evaluation", "planning", "predict", "stages", "train"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
TORCH = {
    *(
        "arrangement",
        "augment",
        "checkpoint",
        "compiling",
        "demo",
        "device",
        "events",
        "heatmaps",
        "interim",
        "landmark_maps",
        "losses",
        "model",
        "nets",
    ),
    *("optimizers", "parallel", "predict"),
    *("pretrained", "repeatable", "reporting", "rescue", "room", "running", "sampling", "step", "train", "validation", "windows"),
}
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}


@cache
def files() -> dict[str, Path]:
    """Every file by its dotted name below autoseg: 'geometry', 'io', 'io.images'."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del names[""]  # the list of public names, which loads lazily and so may name every layer
    return names


def unit(name: str) -> str:
    """The module or package of a dotted name, as it stands in the table."""
    return name.split(".")[0]


@cache
def imports(name: str) -> frozenset[str]:
    """Everything that a file imports, wherever in it: 'torch', 'numpy.random', 'autoseg.io.images'."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(files()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import; say where it comes from"
            assert node.module is not None
            found |= {_imported(node.module, alias.name) for alias in node.names}
    return frozenset(found)


def _imported(module: str, name: str) -> str:
    """`from autoseg.cli import options` imports a file, `from autoseg.io import read_image` a name."""
    return f"{module}.{name}" if f"{module}.{name}".removeprefix("autoseg.") in files() else module


def inside(name: str) -> set[str]:
    """Files of autoseg that a file imports."""
    return {i.removeprefix("autoseg.") for i in imports(name) if i.startswith("autoseg.")}


def test_every_module_is_in_the_table_once() -> None:
    listed = [module for layer in LAYERS for module in layer]
    assert len(listed) == len(set(listed))
    assert set(listed) == {unit(name) for name in files()}
    assert set(listed) >= TORCH


@pytest.mark.parametrize("name", sorted(files()))
def test_imports_come_from_lower_layers(name: str) -> None:
    for other in inside(name):
        if unit(other) != unit(name):
            assert LAYER[unit(other)] < LAYER[unit(name)], f"{name} (layer {LAYER[unit(name)]}) imports {other}"


@pytest.mark.parametrize("name", sorted(files()))
def test_only_the_version_is_taken_from_the_package_itself(name: str) -> None:
    """The public list is for users; inside, an import names the module."""
    for node in ast.walk(ast.parse(files()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "autoseg":
            assert {alias.name for alias in node.names} == {"__version__"}


def test_no_cycle_inside_a_package() -> None:
    """Between packages the layers forbid it. A package's __init__ gathers its files, so the files do not import it."""
    graph = {name: {o for o in inside(name) if o in files() and unit(o) == unit(name) and o != name} for name in files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_torch_is_imported_by_marked_modules_only() -> None:
    direct = {unit(name) for name in files() if any(i.split(".")[0] == "torch" for i in imports(name))}
    assert direct <= TORCH, f"import torch, but are not marked: {sorted(direct - TORCH)}"
    reached = set(direct)
    for layer in LAYERS:  # upwards: what stands on torch needs it, too
        for module in layer:
            if any(unit(o) in reached for name in files() if unit(name) == module for o in _eager(name)):
                reached.add(module)
    assert reached == TORCH


def _eager(name: str) -> set[str]:
    """Files of autoseg that are imported with this one: at the top of the file, not inside a function or for types only."""
    found: set[str] = set()
    for node in ast.parse(files()[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("autoseg."):
            found |= {_imported(node.module, alias.name).removeprefix("autoseg.") for alias in node.names}
    return found


def test_modules_without_mark_load_without_torch() -> None:
    """The same, as Python sees it: one interpreter imports them all."""
    plain = [f"autoseg.{name}" for name in sorted(files()) if unit(name) not in TORCH]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    if 'torch' in sys.modules:\n        sys.exit(f'{name} loads torch')\n"
    done = subprocess.run([sys.executable, "-c", code, *plain], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_is_a_drawer_for_everything() -> None:
    assert not {name for name in files() if name.rpartition(".")[2] in {"utils", "util", "helpers", "common", "misc"}}
