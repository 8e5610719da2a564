"""Plans of the Medical Segmentation Decathlon: autoseg beside nnU-Net, value by value.

    python benchmarks/bench_plan.py FOLDER [--out benchmarks/results/plan.md]

FOLDER has one folder a task, each with nnU-Net's dataset.json, dataset_fingerprint.json and the
nnunet_plans.json that its default planner made of them. Time is that of `make_plan`, the first call
in a new process and the median of ten more.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _report import machine, write_report

from autoseg.dataset import read_description
from autoseg.fingerprint.dataset import Fingerprint
from autoseg.plan import Configuration, Plan
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.nnunet import FILE, from_nnunet
from autoseg.planner.spacing import median_shape

BUDGET = Budget("cuda", 8)
SCHEMES = {
    ("CTNormalization", False): "ct",
    ("ZScoreNormalization", False): "zscore",
    ("ZScoreNormalization", True): "zscore_nonzero",
}
RESENC = {  # 3D patch and batch of nnU-Net's presets M, L and XL, from running its planners (nnU-Net 2.8.1)
    8: {"01": "128×128×128 / 2", "02": "80×192×160 / 2", "03": "128×128×128 / 2", "04": "40×56×40 / 58"}
    | {"05": "20×256×256 / 2", "06": "80×192×160 / 2", "07": "40×224×192 / 2"},
    24: {"01": "160×192×160 / 3", "02": "112×288×224 / 2", "03": "192×192×192 / 2", "04": "40×56×40 / 178"}
    | {"05": "20×320×320 / 5", "06": "112×256×256 / 2", "07": "56×320×256 / 2"},
    40: {"01": "160×192×160 / 5", "02": "128×320×256 / 3", "03": "224×256×224 / 2", "04": "40×56×40 / 183"}
    | {"05": "20×320×320 / 8", "06": "128×320×320 / 2", "07": "64×384×384 / 2"},
}


def load(folder: Path) -> Fingerprint:
    path = folder / FILE
    return from_nnunet(folder.name, read_description(folder), json.loads(path.read_text()), path)


def size(values: Any) -> str:
    return "×".join(f"{v:.5g}" for v in values)


def halvings(strides: Any) -> str:
    """'1×2×2, 4·2×2×2': rows, with how often they are repeated."""
    rows: list[list[Any]] = []
    for row in strides:
        if rows and rows[-1][0] == tuple(row):
            rows[-1][1] += 1
        else:
            rows.append([tuple(row), 1])
    return ", ".join(f"{count}·{size(row)}" if count > 1 else size(row) for row, count in rows)


def rows_of(ours: Configuration, theirs: dict[str, Any], shape: tuple[float, ...]) -> list[tuple[str, str, str, bool]]:
    """Rows of name, our value, nnU-Net's value, equal or not."""
    network = theirs["architecture"]["arch_kwargs"]
    spacing = max(abs(a - b) for a, b in zip(ours.space.spacing_mm, theirs["spacing"]))
    median = theirs["median_image_size_in_voxels"]
    n, k = network["strides"], network["kernel_sizes"]
    row = list(map(tuple, n))
    kernels = list(map(tuple, k))
    return [
        (
            "previous stage",
            ours.previous_stage or "none",
            theirs.get("previous_stage") or "none",
            ours.previous_stage == theirs.get("previous_stage"),
        ),
        ("spacing, mm", size(ours.space.spacing_mm), size(theirs["spacing"]), spacing < 1e-9),
        ("median case, voxels", size(shape), size(median), tuple(shape) == tuple(median)),
        ("patch", size(ours.patch.patch_size), size(theirs["patch_size"]), list(ours.patch.patch_size) == theirs["patch_size"]),
        ("batch", str(ours.patch.batch_size), str(theirs["batch_size"]), ours.patch.batch_size == theirs["batch_size"]),
        ("strides", halvings(ours.network.strides), halvings(n), list(ours.network.strides) == row),
        ("kernels", halvings(ours.network.kernel_sizes), halvings(k), list(ours.network.kernel_sizes) == kernels),
        (
            "features",
            ", ".join(map(str, ours.network.features)),
            ", ".join(map(str, network["features_per_stage"])),
            list(ours.network.features) == network["features_per_stage"],
        ),
        (
            "convolutions",
            ", ".join(map(str, (*ours.network.encoder_blocks, *ours.network.decoder_blocks))),
            ", ".join(map(str, (*network["n_conv_per_stage"], *network["n_conv_per_stage_decoder"]))),
            [*ours.network.encoder_blocks, *ours.network.decoder_blocks]
            == [*network["n_conv_per_stage"], *network["n_conv_per_stage_decoder"]],
        ),
    ]


def shape_at(fingerprint: Fingerprint, plan: Plan, name: str) -> tuple[float, ...]:
    """Median case; that of slices and of the coarse grid follows from the full one, as in nnU-Net."""
    full, space = plan.configurations["3d_fullres"].space.spacing_mm, plan.configurations[name].space
    shape = median_shape(fingerprint.cases, full)
    if space.slice_axis is not None:
        return tuple(n for axis, n in enumerate(shape) if axis != space.slice_axis)
    if space.spacing_mm == full:
        return shape
    return tuple(round(n * f / s) for n, f, s in zip(shape, full, space.spacing_mm))


def complete(theirs: dict[str, Any]) -> dict[str, Any]:
    """nnU-Net's configurations under our names; its cascade inherits all but its previous stage from 3d_fullres."""
    own = {name: c for name, c in theirs.items() if name in ("2d", "3d_fullres", "3d_lowres")}
    if "3d_cascade_fullres" in theirs:
        own["3d_cascade"] = theirs["3d_fullres"] | theirs["3d_cascade_fullres"]
    return own


def first_call(folder: Path) -> float:
    """Milliseconds of the first plan that a process makes."""
    code = "import sys, time, pathlib; sys.path.insert(0, sys.argv[1]); import bench_plan as b\n"
    code += "fingerprint = b.load(pathlib.Path(sys.argv[2])); start = time.perf_counter(); b.make_plan(fingerprint, b.BUDGET)\n"
    code += "print(1000 * (time.perf_counter() - start)); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def timed(fingerprint: Fingerprint, budget: Budget) -> float:
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        make_plan(fingerprint, budget)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def values_of(folder: Path) -> list[tuple[str, str, str, str, bool]]:
    """Rows of configuration, value, ours, nnU-Net's, equal or not: one task."""
    fingerprint = load(folder)
    plan = make_plan(fingerprint, BUDGET)
    theirs = complete(json.loads((folder / "nnunet_plans.json").read_text())["configurations"])
    schemes = zip(theirs["3d_fullres"]["normalization_schemes"], theirs["3d_fullres"]["use_mask_for_norm"])
    normalization = ", ".join(SCHEMES[name, masked] for name, masked in schemes)
    rows = [
        ("-", "configurations", ", ".join(sorted(plan.configurations)), ", ".join(sorted(theirs))),
        ("-", "normalisation", ", ".join(c.normalization for c in plan.data.channels), normalization),
    ]
    values = [(*row, row[2] == row[3]) for row in rows]
    for name in sorted({*theirs} & {*plan.configurations}):
        shape = shape_at(fingerprint, plan, name)
        values += [(name, *row) for row in rows_of(plan.configurations[name], theirs[name], shape)]
    return values


def plain_lines(tasks: Sequence[Path]) -> list[str]:
    lines = ["| task | configuration | value | autoseg | nnU-Net | equal |", "| --- | --- | --- | --- | --- | --- |"]
    equal = 0
    for folder in tasks:
        for name, value, ours, expected, is_equal in values_of(folder):
            equal += is_equal
            lines.append(f"| {folder.name} | {name} | {value} | {ours} | {expected} | {'yes' if is_equal else 'NO'} |")
    return [*lines, "", f"{equal} of {len(lines) - 2} values are equal."]


def residual_lines(tasks: Sequence[Path]) -> list[str]:
    lines = [
        "Patch / batch of 3d_fullres. Batches differ where 5 % of the dataset's voxels are less: a limit that the presets lack.",
        "",
        "| task | memory, GB | autoseg | nnU-Net | patch equal | 3d_lowres of autoseg |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for folder in tasks:
        fingerprint = load(folder)
        for memory, published in RESENC.items():
            plan = make_plan(fingerprint, Budget("cuda", memory, "residual"))
            full = plan.configurations["3d_fullres"].patch
            expected = published[folder.name[4:6]]
            low = plan.configurations.get("3d_lowres")
            coarse = f"{size(low.space.spacing_mm)} mm, {size(low.patch.patch_size)} / {low.patch.batch_size}" if low else "none"
            is_equal = "yes" if expected.split(" / ")[0] == size(full.patch_size) else "NO"
            ours = f"{size(full.patch_size)} / {full.batch_size}"
            lines.append(f"| {folder.name} | {memory} | {ours} | {expected} | {is_equal} | {coarse} |")
    return lines


def time_lines(tasks: Sequence[Path]) -> list[str]:
    lines = ["| task | cases | plain, 8 GB, first | again | residual, 40 GB | CPU |", "| --- | --- | --- | --- | --- | --- |"]
    for folder in tasks:
        fingerprint = load(folder)
        again, residual, cpu = (timed(fingerprint, b) for b in (BUDGET, Budget("cuda", 40, "residual"), Budget("cpu", 8)))
        times = f"{first_call(folder):.0f} | {again:.0f} | {residual:.0f} | {cpu:.0f}"
        lines.append(f"| {folder.name} | {len(fingerprint.cases)} | {times} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tasks = sorted(p for p in options.folder.iterdir() if (p / FILE).is_file())
    lines = [
        *("## Family plain, 8 GB, beside nnU-Net's default plans", "", *plain_lines(tasks), ""),
        *("## Family residual beside nnU-Net's ResEnc M, L and XL", "", *residual_lines(tasks), ""),
        *("## Time to plan, ms", "", *time_lines(tasks)),
    ]
    versions = f"{machine('autoseg')}, Python {platform.python_version()}"
    write_report("Plans beside nnU-Net's", "bench_plan.py FOLDER", versions, lines, out=options.out)


if __name__ == "__main__":
    main()
