from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.limits import HANGS

import autoseg

PUBLIC = [
    "AutosegError",
    "Box",
    "Case",
    "DataError",
    "Dataset",
    "Evaluation",
    "Fingerprint",
    "GeometryError",
    "Grid",
    "Image",
    "LabelError",
    "LabelMap",
    "LabelSet",
    "LandmarkSet",
    "Landmarks",
    "Plan",
    "PlanError",
    "PredictReport",
    "ResourceError",
    "Result",
    "TrainReport",
    "TrainedModel",
    "UsageError",
    "evaluate",
    "load_landmarks",
    "load_model",
    "load_plan",
    "load_plugin",
    "make_phantoms",
    "open_dataset",
    "plan_dataset",
    "predict",
    "read_image",
    "read_label_map",
    "register",
    "save_plan",
    "train",
    "write_image",
    "write_label_map",
    "write_landmarks",
]


def test_the_public_list_is_this_one_and_sorted() -> None:
    assert autoseg.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_under_its_own_name_and_documented(name: str) -> None:
    value = getattr(autoseg, name)
    assert value.__name__ == name
    assert value.__module__.startswith("autoseg.")
    assert inspect.getdoc(value)
    assert name in dir(autoseg)


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    source = Path(autoseg.__file__).read_text(encoding="utf-8")
    seen = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname and alias.name != "__version__"
    }
    assert seen == {name: f"autoseg.{module}" for name, module in autoseg._HOME.items()}


def test_no_name_hides_a_module() -> None:
    """A function called like a room would come and go with the order of imports."""
    modules = {p.stem for p in Path(autoseg.__file__).parent.glob("*.py")} | {
        p.parent.name for p in Path(autoseg.__file__).parent.glob("*/__init__.py")
    }
    assert not modules & set(PUBLIC)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'autoseg' has no attribute 'Datset'"):
        autoseg.Datset  # noqa: B018


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS, check=True).stdout.strip()


def test_importing_autoseg_loads_nothing_else() -> None:
    heavy = "{'numpy', 'torch', 'SimpleITK', 'scipy', 'autoseg.errors'}"
    assert run(f"import sys, autoseg; dir(autoseg); print({heavy} & set(sys.modules))") == "set()"


def test_a_name_loads_its_module_only() -> None:
    assert run("import sys, autoseg; autoseg.Grid; print('torch' in sys.modules, 'SimpleITK' in sys.modules)") == "False False"
