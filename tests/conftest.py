"""Shared fixtures: the folder of real data, and a small dataset that is made, planned and trained on the spot."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.tiny import DATASET_NAME, Tiny, TinyRuns, shrink_plan
from hypothesis import settings

if TYPE_CHECKING:  # torch takes seconds to import, and most test files do without it
    from autoseg.dataset import Dataset
    from autoseg.nets.device import Device
    from autoseg.pipeline.workspace import Workspace

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when torch and NumPy are first used, here and in subprocesses
    os.environ.setdefault(threads, "1")  # the networks of the tests are so small that more only wait for each other

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as where a shell runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The same examples in every run: a red run means that the code has changed, not the dice.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


LEVEL = logging.getLogger("autoseg").level


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a file or folder below $AUTOSEG_DATA (else ../shared/data beside the checkout); skips where absent."""
    root = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} in {root}; set AUTOSEG_DATA")
        return path

    return find


@pytest.fixture(scope="session")
def float32_cpu() -> Device:
    """The same numbers on every machine. One thread: the networks of the tests are too small for more."""
    import torch

    from autoseg.nets.device import Device

    torch.set_num_threads(1)

    return Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    from autoseg.dataset import open_dataset
    from autoseg.dataset.phantoms import make_phantoms
    from autoseg.pipeline.fingerprint import fingerprint_dataset
    from autoseg.pipeline.plan import PlanOptions, plan_dataset
    from autoseg.pipeline.preprocess import preprocess_dataset
    from autoseg.pipeline.workspace import Workspace
    from autoseg.plan import save_plan

    folder = tmp_path_factory.mktemp("tiny")
    data = make_phantoms(folder / DATASET_NAME, 5, 2, shape=(12, 32, 40))
    dataset, workspace = open_dataset(data), Workspace(folder / "work")
    fingerprint_dataset(dataset, workspace, workers=0).raise_if_failed()
    plan = shrink_plan(plan_dataset(dataset, workspace, PlanOptions("cpu", 8)))
    save_plan(plan, workspace.dataset_folder(dataset.name) / "plan.json")
    preprocess_dataset(dataset, workspace, workers=0).raise_if_failed()
    return Tiny(data, dataset, workspace, plan, plan.configuration(None)[1])


@pytest.fixture
def dataset(tiny: Tiny, tmp_path: Path) -> Dataset:
    """A copy that a test may change."""
    from autoseg.dataset import open_dataset

    shutil.copytree(tiny.data, tmp_path / DATASET_NAME)
    return open_dataset(tmp_path / DATASET_NAME)


@pytest.fixture
def workspace(tiny: Tiny, tmp_path: Path) -> Workspace:
    """The tiny dataset's documents without its prepared cases and runs, for a copy of the dataset."""
    from autoseg.pipeline.workspace import Workspace

    about = tmp_path / "work" / "datasets" / DATASET_NAME
    shutil.copytree(tiny.workspace.dataset_folder(DATASET_NAME), about, ignore=shutil.ignore_patterns("source.json"))
    return Workspace(tmp_path / "work")


@pytest.fixture(scope="session")
def tiny_runs(tiny: Tiny, float32_cpu: Device) -> TinyRuns:
    """Folds 0 and 1, trained for two epochs of three steps."""
    from autoseg.pipeline.training import training_job
    from autoseg.runs.budget import RunBudget
    from autoseg.runs.options import TrainingOptions
    from autoseg.training.train import train

    jobs = [training_job(tiny.dataset, tiny.workspace, None, fold) for fold in ("0", "1")]
    first, second = (train(job, TrainingOptions(RunBudget(epochs=2)), float32_cpu) for job in jobs)
    return TinyRuns(jobs[0].run.parent, (first, second))


@pytest.fixture(autouse=True)
def _level_of_the_log() -> Iterator[None]:
    """A command that was told to be quiet, or to speak, must not do so to later tests."""
    log = logging.getLogger("autoseg")
    log.setLevel(LEVEL)  # what is shared by several tests may have been told so before this one began
    yield
    log.setLevel(LEVEL)
