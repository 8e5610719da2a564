"""The stages of the pipeline on a workspace: each reads what the one before wrote, and can be run again alone.

The command line calls these and nothing else; so can a program.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from autoseg.batch import Failure
from autoseg.dataset import Dataset, read_description
from autoseg.errors import DataError
from autoseg.fingerprint import Fingerprint, has_fingerprint, load_fingerprint, take_fingerprint
from autoseg.folds import extend_folds, load_folds, make_folds, save_folds
from autoseg.pairs import PairReader
from autoseg.plan import Plan, load_plan, save_plan
from autoseg.planner import Budget, make_plan
from autoseg.planner.nnunet import FILE as NNUNET_FINGERPRINT
from autoseg.planner.nnunet import from_nnunet
from autoseg.preprocess import PreprocessReport, preprocess
from autoseg.progress import log
from autoseg.workspace import Workspace

CPU_MEMORY_GB = 8.0  # a laptop's share for training; the plan for a CPU is bound by time long before
NNUNET_MEMORY_GB = 8.0  # of nnU-Net's default planner


def fingerprint_dataset(
    dataset: Dataset, workspace: Workspace, failures: list[Failure], workers: int | None, reader: PairReader | None = None
) -> Fingerprint:
    """Scans what is new, writes fingerprint.json, and brings splits.json up to date with the cases that are usable."""
    folder = workspace.about(dataset.name)
    notices: list[str] = []
    fingerprint = take_fingerprint(dataset, folder, failures, notices, workers, reader)
    for notice in notices[:5]:
        log.warning("note: %s", notice)
    if len(notices) > 5:
        log.warning("note: %d more, see %s", len(notices) - 5, folder / "fingerprint.json")
    names = [c.name for c in fingerprint.cases]
    path = folder / "splits.json"
    folds = extend_folds(load_folds(path), names, fingerprint.hash) if path.is_file() else make_folds(names, fingerprint.hash)
    save_folds(folds, path)
    return fingerprint


def ensure_fingerprint(dataset: Dataset, workspace: Workspace, failures: list[Failure], workers: int | None = None) -> None:
    """Scans a dataset that has not been scanned before, or by an older autoseg that looked at less."""
    if not has_fingerprint(workspace.about(dataset.name) / "fingerprint.json"):
        fingerprint_dataset(dataset, workspace, failures, workers)


def plan_dataset(
    dataset: Dataset,
    workspace: Workspace,
    device: str = "auto",
    memory_gb: float | None = None,
    replan: bool = False,
    family: str | None = None,
) -> Plan:
    """Writes plan.json, or keeps the one that is there: a plan may have been edited by hand, and models depend on it.

    A kept plan that no longer fits dataset or budget is said to be so; `replan` makes a new one and keeps the old beside it.
    """
    folder = workspace.about(dataset.name)
    fingerprint = load_fingerprint(folder / "fingerprint.json")
    budget = _budget(device, memory_gb, family)
    path = folder / "plan.json"
    workspace.remember_dataset(dataset.root)
    if path.is_file() and not replan:
        plan = load_plan(path)
        origin = plan.origin
        asked = memory_gb is not None or device != "auto" or family is not None
        if origin.fingerprint != fingerprint.hash:
            log.warning("note: the dataset has changed since it was planned; the plan is kept, --replan makes a new one")
        elif asked and (kept := Budget(origin.device, origin.memory_gb, origin.family)) != budget:
            log.warning("note: the plan at hand is for %s; it is kept, --replan makes one for %s", kept, budget)
        return plan
    if path.is_file():
        path.replace(folder / "plan.previous.json")
    plan = make_plan(fingerprint, budget)
    save_plan(plan, path)
    return plan


def is_nnunet_folder(folder: Path) -> bool:
    """Whether nnU-Net has left its fingerprint of a dataset there."""
    return (folder / NNUNET_FINGERPRINT).is_file()


def plan_nnunet_folder(folder: Path, device: str = "auto", memory_gb: float | None = None, family: str | None = None) -> Plan:
    """Plans from nnU-Net's dataset_fingerprint.json and the dataset.json beside it; writes nothing.

    What is planned for need not be this machine, so `auto` is a GPU, with the memory of nnU-Net's default planner.

    Raises:
        DataError: one of the files is missing or malformed.
    """
    path = folder / NNUNET_FINGERPRINT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{NNUNET_FINGERPRINT} cannot be read", file=path, found=str(error)) from error
    kind = "cuda" if device == "auto" or device.startswith("cuda") else "cpu"
    budget = Budget(kind, NNUNET_MEMORY_GB if memory_gb is None else memory_gb, family or "plain")
    return make_plan(from_nnunet(folder.resolve().name, read_description(folder), found, path), budget)


def find_plan(
    path: Path, workspace: Workspace, device: str = "auto", memory_gb: float | None = None, family: str | None = None
) -> Plan:
    """The plan that a path stands for: a plan file, a folder with a plan.json, a planned dataset, or nnU-Net's folder of one.

    Raises:
        UsageError: the dataset has not been planned.
        PlanError: the file is no plan.
    """
    if path.is_file():
        return load_plan(path)
    if (path / "plan.json").is_file():
        return load_plan(path / "plan.json")
    if is_nnunet_folder(path):
        return plan_nnunet_folder(path, device, memory_gb, family)
    return load_plan(workspace.about(path.resolve().name) / "plan.json")


def prepare_dataset(
    dataset: Dataset,
    workspace: Workspace,
    configuration: str | None,
    failures: list[Failure],
    workers: int | None,
    reader: PairReader | None = None,
) -> PreprocessReport:
    """Brings the usable cases to the plan's grid; what is there and unchanged is kept."""
    folder = workspace.about(dataset.name)
    plan = load_plan(folder / "plan.json")
    name, _ = plan.configuration(configuration)
    keys = {c.name: c.digest for c in load_fingerprint(folder / "fingerprint.json").cases}
    if not any(c.name in keys for c in dataset.cases):
        raise DataError("no usable case", file=folder / "fingerprint.json", fix="autoseg fingerprint -d DATASET")
    return preprocess(dataset, plan, name, workspace.prepared(dataset.name, name), keys, failures, workers, reader)


def describe_plan(plan: Plan, path: Path) -> str:
    """What was decided, in a few lines."""
    lines = []
    for name, c in plan.configurations.items():
        lines.append(
            f"{name}: spacing {_times(c.space.spacing_mm)} mm, patch {_times(c.patch.patch_size)}, batch {c.patch.batch_size}, "
            f"{len(c.network.features)} stages of {_times(c.network.features, ', ')} features"
        )
    return "\n".join([*lines, f"plan with reasons: {path}"])


def forget_run(run: Path) -> None:
    """Moves a run aside (to `<fold>.previous`, replacing what was there) so that training starts anew."""
    if run.is_dir():
        previous = run.with_name(f"{run.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        run.replace(previous)


def _budget(device: str, memory_gb: float | None, family: str | None = None) -> Budget:
    """The named device, or for `auto` the GPU if nvidia-smi lists one. torch is not asked: it takes seconds to import."""
    gpu = _gpu_memory_gb()
    kind = "cuda" if device.startswith("cuda") or (device == "auto" and gpu is not None) else "cpu"
    own = gpu if kind == "cuda" and gpu else CPU_MEMORY_GB
    return Budget(kind, own if memory_gb is None else memory_gb, family or "plain")


def _gpu_memory_gb() -> float | None:
    """Memory of the smallest GPU; None without an NVIDIA driver that answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):  # a broken driver hangs
        return None
    sizes = [float(line) for line in answer.stdout.splitlines() if line.strip().replace(".", "").isdecimal()]
    return round(min(sizes) / 1024, 1) if answer.returncode == 0 and sizes else None


def _times(values: tuple[float, ...] | tuple[int, ...], between: str = "×") -> str:
    return between.join(f"{v:.4g}" for v in values)
