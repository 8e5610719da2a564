"""Source archive, wheel and their metadata, built from a copy of the checkout without network."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import autoseg

ROOT = Path(__file__).parents[1]
NAME = "autoseg-medical"
STEM = f"autoseg_medical-{autoseg.__version__}"
DIST_INFO = f"{STEM}.dist-info"
PAGES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md")
FOLDERS = ("autoseg", "docs", "plans")
BUILT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def build(kind: str, source: Path, output: Path) -> Path:
    """Build as pip does once it has the build requirements, in a process of its own."""
    output.mkdir()
    code = f"import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(output)], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = output.iterdir()
    return archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source archive of a copy of this checkout, tests and benchmarks included."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for folder in (*FOLDERS, "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=BUILT)
    return build("sdist", copy, copy / "out")


@pytest.fixture(scope="module")
def sdist_files(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.removeprefix(f"{STEM}/") for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source archive alone."""
    folder = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return build("wheel", folder / STEM, folder / "out")


@pytest.fixture(scope="module")
def wheel_files(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return email.message_from_string(zipfile.ZipFile(wheel).read(f"{DIST_INFO}/METADATA").decode("utf-8"))


def below(folder: str, pattern: str = "*") -> set[str]:
    """Files of the checkout, as paths from its top."""
    paths = (ROOT / folder).rglob(pattern)
    return {p.relative_to(ROOT).as_posix() for p in paths if p.is_file() and "__pycache__" not in p.parts}


def requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def test_archives_are_named_after_the_distribution(sdist: Path, wheel: Path) -> None:
    assert sdist.name == f"{STEM}.tar.gz"
    assert wheel.name == f"{STEM}-py3-none-any.whl"


def test_wheel_holds_the_package_and_nothing_else(wheel_files: set[str]) -> None:
    package = below("autoseg", "*.py") | {"autoseg/py.typed"}
    assert {name for name in wheel_files if not name.startswith(DIST_INFO)} == package
    assert len(package) > 100


def test_wheel_carries_the_license(wheel: Path) -> None:
    assert zipfile.ZipFile(wheel).read(f"{DIST_INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_sdist_holds_package_plans_docs_and_pages_but_no_tests(sdist_files: set[str]) -> None:
    shipped = {name for name in sdist_files if name.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    assert shipped == set().union(*map(below, FOLDERS))
    assert set(PAGES) | {"setup.cfg", "pyproject.toml", "constraints.txt"} <= sdist_files
    assert not [name for name in sdist_files if name.startswith(("tests/", "benchmarks/", "."))]


def test_metadata_say_what_is_installed_where(metadata: Message) -> None:
    assert metadata["Name"] == NAME
    assert metadata["Version"] == autoseg.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_command_is_autoseg(wheel: Path) -> None:
    scripts = ConfigParser()
    scripts.read_string(zipfile.ZipFile(wheel).read(f"{DIST_INFO}/entry_points.txt").decode())
    assert scripts.sections() == ["console_scripts"]
    assert dict(scripts["console_scripts"]) == {"autoseg": "autoseg.cli:main"}


def test_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import autoseg, sys; from autoseg.cli import main; print(autoseg.__file__); sys.argv[1:] = ['--version']; main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, version = done.stdout.splitlines()
    assert Path(file) == tmp_path / "autoseg" / "__init__.py"
    assert version == f"autoseg {autoseg.__version__}"


@pytest.mark.parametrize("version", ["2.4.1", "2.5.1", "2.9.0", "2.9.1"])
def test_torch_releases_that_are_refused(metadata: Message, version: str) -> None:
    (torch,) = [r for r in requirements(metadata) if r.name == "torch"]
    assert version not in torch.specifier


@pytest.mark.parametrize("version", ["2.6.0", "2.8.0", "2.10.0", "2.13.0", "2.14.1"])
def test_torch_releases_that_are_taken(metadata: Message, version: str) -> None:
    (torch,) = [r for r in requirements(metadata) if r.name == "torch"]
    assert version in torch.specifier


def test_constraints_pin_every_requirement_within_its_bounds(metadata: Message) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {r.name.lower(): r for r in map(Requirement, (line for line in lines if not line.startswith("#")))}
    installed = {"python_version": "3.11", "extra": "dev"}
    direct = [r for r in requirements(metadata) if r.marker is None or r.marker.evaluate(installed)]
    assert len(direct) > 15
    for requirement in direct:
        (pin,) = pins[requirement.name.lower()].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier, requirement.name


def test_messages_name_the_distribution_and_extras_that_exist(metadata: Message) -> None:
    advice = [
        match
        for path in sorted((ROOT / "autoseg").rglob("*.py"))
        for match in re.findall(r"pip install \"?([\w-]+)\[(\w+)\]", path.read_text(encoding="utf-8"))
    ]
    assert advice
    for name, extra in advice:
        assert name == NAME
        assert extra in metadata.get_all("Provides-Extra", [])


def test_citation_names_this_version() -> None:
    assert f"\nversion: {autoseg.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
