"""The pages are true: commands and Python in README.md and docs/ are run, options, links and paths looked up.

A fenced block of the languages below either runs here, in a folder with a tiny dataset, a trained model and predictions, or an
HTML comment above it says why not: `<!-- not run: needs a GPU -->`. `<!-- exits with 4 -->` stands above a command that fails,
`<!-- file: my_loss.py -->` above what a reader is told to put into that file.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
import SimpleITK
import typer
from helpers.limits import HANGS
from helpers.plugins import no_plugins
from helpers.tiny import DATASET_NAME, shrink_plan
from test_layers import ROOMS

import autoseg
from autoseg.cli import app, main

ROOT = Path(__file__).parents[1]
OTHERS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
HISTORY = ROOT / "docs" / "decisions.md"  # names things as they were called on the day
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PRESENT = [page for page in PAGES if page != HISTORY]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LANGUAGES = {"sh", "console", "python", "json", "text", "csv", "diff"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOME = "/home/me"  # the reader's folder in what commands print
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its first line, and the comment above it."""

    language: str
    text: str
    line: int
    comment: str

    @property
    def not_run(self) -> bool:
        return self.comment.startswith("not run: ")

    @property
    def exit_code(self) -> int:
        return int(self.comment.removeprefix("exits with ")) if self.comment.startswith("exits with ") else 0

    @property
    def file(self) -> str:
        return self.comment.removeprefix("file: ") if self.comment.startswith("file: ") else ""

    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command line, and the lines that it is said to print; continued lines are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "sh":
            return [(line, []) for line in lines if line.strip() and not line.startswith("#")]
        found: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip() and line.strip() != "…":
                found[-1][1].append(line)
        return found


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    text = page.read_text(encoding="utf-8")
    return tuple(_block(text, match) for match in FENCE.finditer(text))


def _block(text: str, match: re.Match[str]) -> Block:
    above = text[: match.start()].rstrip().rpartition("\n")[2]
    comment = re.fullmatch(r"<!-- (.*) -->", above)
    return Block(match[1], match[2], text.count("\n", 0, match.start()) + 2, comment[1] if comment else "")


def prose(page: Path) -> str:
    """The page without its blocks, whose lines stay as empty ones."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))


def spans(page: Path) -> Iterator[str]:
    """What stands between backticks in the prose."""
    for match in re.finditer(r"`([^`]+)`", prose(page)):
        yield " ".join(match[1].split())


def words_of(command: str) -> list[str]:
    """The words of a command line of autoseg, without `autoseg`; none where it is another program's."""
    words = shlex.split(command, comments=True)
    if words[:1] == ["autoseg"]:
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1 :][:1] == ["autoseg"]:
        return words[words.index("-m") + 2 :]
    return []


def check_options(command: str) -> None:
    words = words_of(command)
    if not words or words[0] in ("--help", "-h", "--version"):
        return
    assert words[0] in COMMANDS, f"no such command: {command}"
    flags = {flag for p in COMMANDS[words[0]].params for flag in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
    for word in words[1:]:
        assert not re.match(r"--?[a-zA-Z]", word) or word in flags, f"{word} is no option of {words[0]}: {command}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader types: what `autoseg demo` makes, smaller, planned and trained for two short epochs."""
    folder = tmp_path_factory.mktemp("docs")
    make_world(folder)
    return folder


def make_world(folder: Path) -> None:
    root = folder / "autoseg_work"
    data = autoseg.make_phantoms(folder / "autoseg_demo" / DATASET_NAME, 20, 4, shape=(12, 32, 40))
    for name in ("images", "labels"):
        shutil.copytree(data / f"{name}Ts", folder / name)
    broken = autoseg.make_phantoms(folder / "Dataset002_Broken", 6, 0, shape=(12, 32, 40))
    label = broken / "labelsTr" / "phantom_000.nii.gz"
    wrong = SimpleITK.ReadImage(str(label))
    wrong.SetSpacing((1.5, 2.0, 3.0))
    SimpleITK.WriteImage(wrong, str(label))
    plan = shrink_plan(autoseg.plan_dataset(data, device="cpu", root=root))
    autoseg.save_plan(plan, root / "datasets" / DATASET_NAME / "plan.json")
    run = autoseg.train(data, epochs=2, device="cpu", workers=0, root=root)
    autoseg.predict(folder / "images", folder / "masks", model=run, device="cpu", root=root)


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that folder for one page, and the place where its commands run."""
    folder = tmp_path / "here"
    shutil.copytree(world, folder)
    for path in folder.glob("autoseg_work/**/*.json"):  # the workspace knows its last dataset and model by absolute paths
        text = path.read_text(encoding="utf-8")
        if str(world) in text:
            path.write_text(text.replace(str(world), str(folder)), encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    with no_plugins():
        yield folder


def type_in(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Runs a command line as a shell would; exit code and everything that it prints."""
    words = words_of(command)
    if not words:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=HANGS, check=False)
        return done.returncode, done.stdout + done.stderr
    printed = StringIO()
    log = logging.getLogger("autoseg")
    handlers = list(log.handlers)
    monkeypatch.setattr("sys.argv", ["autoseg", *words])
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main()
    except SystemExit as stop:
        return int(stop.code or 0), printed.getvalue()
    finally:
        log.handlers[:] = handlers
    return 0, printed.getvalue()


def without_numbers(line: str) -> str:
    """'4/4 cases in 2 s' as '#/# cases in # s': numbers, lists of numbers and durations are the machine's and the dataset's."""
    line = NUMBER.sub("#", " ".join(line.split()))
    line = re.sub(r"[-+]#", "#", line)
    return re.sub(r"#(?:(?:×|, |–| min )#)+", "#", line)


@pytest.mark.slow
@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_what_a_page_says_to_type_works(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.not_run:
            continue
        if block.file:
            (here / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        elif block.language in ("sh", "console"):
            for command, expected in block.commands():
                code, printed = type_in(command, monkeypatch)
                assert code == block.exit_code, f"{where}: {command}\n{printed}"
                lines = {without_numbers(line) for line in printed.replace(str(here), HOME).splitlines()}
                for line in expected:
                    assert without_numbers(line) in lines, f"{where}: not printed: {line}\n{printed}"
        elif block.language == "json":
            json.loads(block.text)


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_every_block_has_a_language_and_a_known_comment(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: {block.language or 'no language'}"
        assert not block.comment or block.not_run or block.exit_code or block.file, f"{page.name}:{block.line}: {block.comment}"


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("sh", "console"):
            for command, _ in block.commands():
                check_options(command)
    for span in spans(page):
        if span.startswith("autoseg ") and "…" not in span:
            check_options(span)


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """A path of this repository between backticks exists, and so does a name that stands in brackets behind a file."""
    paths = [
        s for s in spans(page) if re.match(r"(?:autoseg|tests|benchmarks|plans|docs|\.ci)/", s) and not re.search(r"[*<{…]", s)
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    named = re.findall(r"`(autoseg/[\w/]+\.py)` \(`(\w+)`\)", " ".join(prose(page).split()))
    assert [(path, name) for path, name in named if not defines(ROOT / path, name)] == []


def defines(file: Path, name: str) -> bool:
    return re.search(rf"^ *(?:class|def) {name}\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(path), f"{page.name}: {target}"


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    long = [line for line in prose(page).splitlines() if len(line) > 100 and not line.startswith("|")]
    assert long == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the rows of the tables below a heading, without their head."""
    section = re.split(r"^#+ ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    [text] = [part for part in section if part.partition("\n")[0] == heading]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set(row[0]) <= set("-: |")][1:]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_commands_lists_every_option(command: str) -> None:
    listed = {flag for row in table(ROOT / "docs" / "commands.md", command) for flag in re.findall(r"`(--?[\w-]+)", row[0])}
    real = {flag for p in COMMANDS[command].params if p.param_type_name == "option" for flag in (*p.opts, *p.secondary_opts)}
    assert listed == real


def test_the_page_of_python_names_everything_public() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in autoseg.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_the_page_of_the_architecture_has_the_arrows_of_the_layers() -> None:
    rows = table(ROOT / "docs" / "architecture.md", "The rooms")
    assert {row[0].strip("`"): set(re.findall(r"\w+", row[-1])) for row in rows} == {
        name: set(others.split()) for name, others in ROOMS.items()
    }


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_differences_that_a_page_shows_apply(page: Path, tmp_path: Path) -> None:
    for i, block in enumerate(b for b in blocks(page) if b.language == "diff"):
        patch = tmp_path / f"{i}.diff"
        patch.write_text(block.text, encoding="utf-8")
        done = subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name}:{block.line}: {done.stderr}"
