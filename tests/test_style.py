"""Style that ruff does not know: how long a function may be, and how a docstring begins.

`python tests/test_style.py` prints what is to be done in the rooms that are not in `CLEAN` yet.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import autoseg

ROOT = Path(autoseg.__file__).parent
LONGEST_FUNCTION = 60  # lines of source, without the docstring

# Functions that may be longer, each with the reason.
LONGER: dict[str, str] = {
    "cli.train.run": "every option of the command is a parameter with its help text",
}

# Rooms (and top-level files) whose docstrings keep the rule; the others follow.
CLEAN: tuple[str, ...] = (
    *("api", "cli", "dataset", "errors", "evaluation", "fingerprint", "footprint", "imaging", "io", "nets", "pipeline", "plan"),
    *("planner", "preprocessing", "runs", "splits", "system", "version"),
)
RIDDLES = ("What ", "Whether ", "Of ", "How ", "The same")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


@dataclass(frozen=True)
class Place:
    """A definition by its dotted name below autoseg: 'io.points.read_text', 'system.progress.Progress.advance'."""

    name: str
    node: Definition
    public: bool

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def first_line(self) -> str:
        """First paragraph of the docstring in one line, which is how an IDE shows it; empty without a docstring."""
        paragraph = (ast.get_docstring(self.node) or "").strip().split("\n\n")[0]
        return " ".join(paragraph.split())


@cache
def definitions() -> tuple[Place, ...]:
    """Every module, class and function of autoseg; a function inside a function is not public."""
    places = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        places.append(Place(module, tree, True))
        places += _inside(tree, module, True)
    return tuple(places)


def _inside(node: ast.AST, prefix: str, public: bool) -> Iterator[Place]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            shown = public and not child.name.startswith("_")
            yield Place(name, child, shown)
            yield from _inside(child, name, shown and isinstance(child, ast.ClassDef))
        else:
            yield from _inside(child, prefix, public)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def`, without its docstring."""
    first = function.body[0]
    assert function.end_lineno is not None
    n = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        n -= first.end_lineno - first.lineno + 1
    return n


def longer() -> dict[str, int]:
    """Lines of the functions that have more than the rule allows, by dotted name."""
    functions = [(p.name, p.node) for p in definitions() if isinstance(p.node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {name: n for name, node in functions if (n := length(node)) > LONGEST_FUNCTION}


def fault(place: Place) -> str | None:
    """The rule of docstrings that a definition breaks; None if it breaks none.

    Methods and properties may go without a docstring where the class's says what they are; a docstring that they have keeps
    the rules.
    """
    line = place.first_line
    if not line:
        is_method = isinstance(place.node, ast.FunctionDef) and "." in place.name and _in_class(place)
        return None if is_method else "no docstring"
    if line.startswith(("Args:", "Raises:", "Returns:")):
        return "no first sentence"
    if line.startswith(RIDDLES):
        return f"begins with '{line.split()[0]}'"
    if not re.search(r"[.!:](\s|$)", line):
        return "the first sentence has no end"
    return None


def _in_class(place: Place) -> bool:
    classes = {p.name for p in definitions() if isinstance(p.node, ast.ClassDef)}
    return place.name.rpartition(".")[0] in classes


def faults() -> dict[str, str]:
    """Faults of docstrings by dotted name."""
    return {p.name: text for p in definitions() if p.public and (text := fault(p)) is not None}


def test_functions_are_at_most_60_lines_long() -> None:
    assert {name: n for name, n in longer().items() if name not in LONGER} == {}


def test_every_exception_has_a_reason() -> None:
    assert all(len(reason.split()) > 3 for reason in LONGER.values())


def test_the_clean_rooms_exist() -> None:
    assert set(CLEAN) <= {p.room for p in definitions()}


@pytest.mark.parametrize("room", CLEAN)
def test_docstrings_begin_with_a_sentence_that_stands_alone(room: str) -> None:
    assert {name: text for name, text in faults().items() if name.split(".")[0] == room} == {}


if __name__ == "__main__":
    for name in sorted(set(LONGER) - set(longer())):
        print(f"{name:60} needs no exception any more")
    for name, text in faults().items():
        if name.split(".")[0] not in CLEAN:
            print(f"{name:60} {text}")
