"""The command `plan` on a workspace: plans for what the user asked and for this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from autoseg.dataset import Dataset, read_description
from autoseg.errors import UsageError
from autoseg.fingerprint.dataset import load_fingerprint
from autoseg.footprint import STEP_PASSES, multiply_accumulates, plan_io, plan_memory
from autoseg.footprint.speed import cpu_has_bf16, cpu_throughput, gpu_throughput
from autoseg.imaging.landmarks import Unit
from autoseg.pipeline.ownership import check_owner
from autoseg.pipeline.plugins import note_unused_rules, set_in_plan
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import DEFAULT_RECIPE, Configuration, DeviceKind, Footprint, Plan, load_plan, save_plan
from autoseg.plan.edits import BY_HAND, apply_edits, carry_plugins, find_edits, remember_in_plan
from autoseg.plan.registries import BLOCKS
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.nnunet import FILE as NNUNET_FINGERPRINT
from autoseg.planner.nnunet import from_nnunet
from autoseg.system.documents import read_json, read_text
from autoseg.system.files import write_text
from autoseg.system.machine import find_gpu
from autoseg.system.progress import log

CPU_MEMORY_GB = 8.0  # a laptop's share for training; the plan for a CPU is bound by time long before
NNUNET_MEMORY_GB = 8.0  # of nnU-Net's default planner
TELLING_GMACS = 5.0  # 10⁹ multiply-accumulates; the time of a smaller step goes elsewhere and says little of larger ones


@dataclass(frozen=True)
class PlanOptions:
    """A user's requests for a plan; None where there is none.

    Args:
        device: `auto` is the GPU if there is one.
        time_s: wall-clock seconds of a training.
    """

    device: str = "auto"
    memory_gb: float | None = None
    family: str | None = None
    time_s: float | None = None
    recipe: str | None = None

    @property
    def is_default(self) -> bool:
        return self == PlanOptions()

    def budget(self, workspace: Workspace) -> Budget:
        """The budget on this machine, at the speed that its processor's name or, with a limit of time, earlier trainings tell.

        Without a limit the same data and machine give the same plan, whatever was trained before.

        Raises:
            UsageError: unknown device, family or recipe, or too little of something.
        """
        self._check_device()
        gpu = find_gpu() if self.device == "auto" or self.device.startswith("cuda") else None
        kind = "cuda" if self.device.startswith("cuda") or gpu else "cpu"
        machine_gb = gpu.memory_gb if gpu else CPU_MEMORY_GB
        estimate = cpu_throughput() if kind == "cpu" else gpu_throughput(gpu.name) if gpu else None
        return Budget(
            device=kind,
            memory_gb=machine_gb if self.memory_gb is None else self.memory_gb,
            family=self.family or "plain",
            time_s=self.time_s,
            gmacs_per_s=estimate if self.time_s is None else workspace.speeds().get(kind, estimate),
            compute="bfloat16" if kind == "cuda" or cpu_has_bf16() else "float32",
            recipe=self.recipe or DEFAULT_RECIPE,
        )

    def budget_elsewhere(self) -> Budget:
        """The budget on another machine: `auto` is a typical GPU with the memory of nnU-Net's default planner."""
        self._check_device()
        kind = "cuda" if self.device == "auto" or self.device.startswith("cuda") else "cpu"
        memory = NNUNET_MEMORY_GB if self.memory_gb is None else self.memory_gb
        return Budget(
            device=kind,
            memory_gb=memory,
            family=self.family or "plain",
            time_s=self.time_s,
            compute="bfloat16",
            recipe=self.recipe or DEFAULT_RECIPE,
        )

    def _check_device(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise UsageError("unknown device", found=self.device, allowed="auto, cpu, cuda, cuda:1, mps")


def plan_dataset(
    dataset: Dataset,
    workspace: Workspace,
    options: PlanOptions = PlanOptions(),
    replan: bool = False,
    *,
    settings: Mapping[str, Any] | None = None,
    configuration: str | None = None,
) -> Plan:
    """Writes plan.json, or keeps the one that is there: a plan may have been edited by hand, and models depend on it.

    A note says where a kept plan no longer fits dataset or options; `replan` makes a new one, carries edits by hand over to it,
    and keeps the old one beside it.

    Args:
        settings: values to set in the plan, new or kept, by key; see `plan.settings.apply_settings`.
        configuration: the one that they are for; None means all.

    Raises:
        PlanError: the existing plan is malformed, or its edits contradict the new plan.
        UsageError: the workspace holds work on another dataset of this name; a setting that cannot be.
    """
    check_owner(dataset.name, dataset.root, workspace)
    folder = workspace.dataset_folder(dataset.name)
    fingerprint = load_fingerprint(folder / "fingerprint.json")
    budget = options.budget(workspace)
    path = folder / "plan.json"
    workspace.remember_dataset(dataset.root)
    if path.is_file() and not replan:
        plan = load_plan(path)
        if plan.origin.fingerprint != fingerprint.hash:
            log.warning("note: the dataset has changed since; the plan is kept, --replan (Python: replan=True) makes a new one")
        elif not options.is_default and (kept := _budget_of(plan)) != _without_speed(budget):
            log.warning(
                "note: the existing plan is for %s; it is kept, --replan (Python: replan=True) makes one for %s", kept, budget
            )
        note_unused_rules()
        if settings:
            plan = set_in_plan(plan, settings, path, configuration)
            save_plan(plan, path)
        return plan
    planned = make_plan(fingerprint, budget)
    plan = planned
    if path.is_file():
        plan = _with_edits(planned, folder)
    if settings:
        plan = set_in_plan(plan, settings, path, configuration)
    if path.is_file():
        write_text(folder / "plan.previous.json", read_text(path))
    save_plan(planned, folder / "plan.planned.json")
    save_plan(plan, path)
    return plan


def note_speed(workspace: Workspace, plan: Plan, configuration: str, device: str, step_s: float) -> None:
    """Remembers the speed of a device that a training has shown, for the next plans.

    Args:
        step_s: seconds that a step took; 0 where none was made.
    """
    c = plan.configurations[configuration]
    macs = multiply_accumulates(c.network, c.patch.patch_size, plan_io(plan, c))
    gmacs = STEP_PASSES * c.patch.batch_size * macs / 1e9
    if c.network.kind not in BLOCKS.built_in:
        return  # whose work nobody has counted
    if device in get_args(DeviceKind) and step_s > 0 and gmacs >= TELLING_GMACS:
        workspace.remember_speed(device, gmacs / step_s)


def is_nnunet_folder(folder: Path) -> bool:
    """True for a folder with nnU-Net's fingerprint of a dataset."""
    return (folder / NNUNET_FINGERPRINT).is_file()


def plan_nnunet_folder(folder: Path, options: PlanOptions) -> Plan:
    """Plans from nnU-Net's dataset_fingerprint.json and the dataset.json beside it; writes nothing.

    Raises:
        DataError: one of the files is missing or malformed.
    """
    path = folder / NNUNET_FINGERPRINT
    document = read_json(path, what=NNUNET_FINGERPRINT, fix="copy the file from nnU-Net's folder again")
    fingerprint = from_nnunet(folder.resolve().name, read_description(folder), document, path)
    return make_plan(fingerprint, options.budget_elsewhere())


def find_plan(path: Path, workspace: Workspace, options: PlanOptions = PlanOptions()) -> Plan:
    """Finds the plan that a path stands for.

    It may be a plan file, a folder with a plan.json, a planned dataset, or nnU-Net's folder of one.

    Raises:
        UsageError: the dataset has not been planned, or another one of this name has.
        PlanError: the file is no plan.
    """
    if path.is_file():
        return load_plan(path)
    if (path / "plan.json").is_file():
        return load_plan(path / "plan.json")
    if is_nnunet_folder(path):
        return plan_nnunet_folder(path, options)
    name = path.resolve().name
    if path.is_dir():
        check_owner(name, path, workspace)
    return load_plan(workspace.dataset_folder(name) / "plan.json")


def describe_plan(plan: Plan, path: Path, unit: Unit = "mm") -> str:
    """Summarises a plan in a line for each configuration; `unit` is that of lengths in the dataset."""
    lines = []
    for name, c in plan.configurations.items():
        mark = " (to train first)" if name == plan.default_configuration and len(plan.configurations) > 1 else ""
        lines.append(
            f"{name}{mark}: spacing {_times(c.space.spacing_mm)} {unit}, patch {_times(c.patch.patch_size)}, "
            f"batch {c.patch.batch_size}, {len(c.network.features)} stages of {_times(c.network.features, ', ')} features"
            f"{_landmarks(plan, c, unit)}{_costs(c.footprint)}"
        )
        if c.footprint and c.footprint.training_gb > plan.origin.memory_gb:
            lines.append(
                f"    note: more than {plan.origin.memory_gb:g} GB, see its footprint in plan show; --memory makes it fit"
            )
    return "\n".join([*lines, f"plan with reasons: {path}"])


def _with_edits(planned: Plan, folder: Path) -> Plan:
    """The new plan with the edits by hand of the old one."""
    path, record = folder / "plan.json", folder / "plan.planned.json"
    old = load_plan(path)
    old_planned = load_plan(record) if record.is_file() else None
    if old_planned is None or old_planned.origin != old.origin:
        log.warning("note: it is unknown what was edited by hand in the old plan; it is kept as plan.previous.json")
        return planned
    edits = find_edits(old_planned, old)
    plan, dropped = apply_edits(carry_plugins(planned, old), edits, path)
    for name, c in plan.configurations.items():
        needed = plan_memory(plan, name, plan.origin.compute or "float32", plan.origin.device).total / 1e9
        if c.footprint is None and needed > plan.origin.memory_gb:
            log.warning(
                "note: with the edits %s takes about %.1f GB to train, more than %g GB", name, needed, plan.origin.memory_gb
            )
    for edit in edits:
        what = "edit by hand" if edit.origin == BY_HAND else "setting of the command line"
        log.warning("note: %s %s: %s", what, "has no place in the new plan" if edit in dropped else "kept", edit)
    return remember_in_plan(plan)


def _landmarks(plan: Plan, c: Configuration, unit: Unit) -> str:
    if c.landmarks is None:
        return ""
    sigma = _times(c.landmarks.sigma_mm)
    branch = " and a spatial configuration branch" if c.landmarks.scn else ""
    return f"; {len(plan.data.landmarks)} landmarks, sigma {sigma} {unit}, {c.landmarks.loss}{branch}"


def _costs(footprint: Footprint | None) -> str:
    if footprint is None:
        return ""
    return f"; about {footprint.training_gb:.1f} GB and {footprint.step_s:.2g} s a step, {footprint.prepared_gb:.2g} GB on disk"


def _budget_of(plan: Plan) -> Budget:
    """The budget that a plan was made for."""
    origin = plan.origin
    return Budget(
        device=origin.device,
        memory_gb=origin.memory_gb,
        family=origin.family,
        time_s=plan.configurations[plan.default_configuration].training.time_s,
        recipe=origin.recipe,
    )


def _without_speed(budget: Budget) -> Budget:
    """The budget without speed: a plan is not out of date because the machine turns out to be faster."""
    return replace(budget, gmacs_per_s=None, compute=None)


def _times(values: tuple[float, ...] | tuple[int, ...], between: str = "×") -> str:
    return between.join(f"{v:.4g}" for v in values)
