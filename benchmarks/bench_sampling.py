"""Dice of a structure that few cases have, with patches drawn by case and by structure.

    python benchmarks/bench_sampling.py [--epochs 14] [--seeds 2] [--out benchmarks/results/sampling.md]

Twenty phantoms to train on (two kidneys, whose stones are part of them), of which three have a
nodule: a ball of radius 2.5 to 3.5 voxels, as bright as a stone, anywhere between the kidneys. Both
ways of sampling, and nnU-Net's share of patches on structures against twice as many, learn from the
same cases for the same number of steps, with half of the planned features; the patch is about half
a case along each axis. Dice is that of ten other cases with a nodule; ten without one show whether
it is seen where it is not.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _report import machine, write_report
from _training import learn_and_test

from autoseg.dataset.phantoms import LABELS, make_phantom
from autoseg.evaluation.label_maps import StructureSummary
from autoseg.imaging.image import LabelMap
from autoseg.imaging.labels import LabelSet
from autoseg.io import write_image, write_label_map
from autoseg.plan import Plan, SamplingKind
from autoseg.system.files import write_text
from autoseg.system.records import to_json

WITH_NODULE = LabelSet((*LABELS.names[:2], "nodule"), (1, 2, 3))
N_RARE, N_TRAINING, N_EACH = 3, 20, 10
SHAPE, PATCH = (24, 56, 64), (16, 32, 32)
BRIGHTNESS = 500.0  # above the body
STEPS = 50
VARIANTS: tuple[tuple[SamplingKind, float], ...] = (("cases", 0.33), ("structures", 0.33), ("cases", 0.67), ("structures", 0.67))


def make_dataset(folder: Path, seed: int) -> Path:
    """nnU-Net's layout: three of the training cases and the first ten test cases have a nodule."""
    with_nodule = {*range(N_RARE), *range(N_TRAINING, N_TRAINING + N_EACH)}
    for i in range(N_TRAINING + 2 * N_EACH):
        rng = np.random.default_rng([seed, i])
        image, label = make_phantom(rng, SHAPE)
        indices, volume = np.array((0, 1, 2, 1, 2), np.uint8)[label.data], image.data[0].copy()
        if i in with_nodule:
            centre = np.array(SHAPE) * rng.uniform((0.25, 0.3, 0.42), (0.75, 0.7, 0.58))
            radius = rng.uniform(2.5, 3.5)
            z, y, x = (axis - c for axis, c in zip(np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]], centre))
            ball = ((2 * z) ** 2 + y**2 + x**2 <= radius**2) & (indices == 0)  # slices are twice as thick
            indices[ball], volume[ball] = WITH_NODULE.n_classes - 1, volume[ball] + BRIGHTNESS
        part = "Tr" if i < N_TRAINING else "Ts"
        path = folder / f"images{part}" / f"phantom_{i:03d}_0000.nii.gz"
        write_image(path, replace(image, data=volume[None]))
        write_label_map(folder / f"labels{part}" / f"phantom_{i:03d}.nii.gz", LabelMap(indices, image.grid, WITH_NODULE), path)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **dict(zip(WITH_NODULE.names, WITH_NODULE.values))},
        "numTraining": N_TRAINING,
        "file_ending": ".nii.gz",
    }
    write_text(folder / "dataset.json", to_json(description))
    return folder


def scores(
    data: Path, work: Path, sampling: SamplingKind, fraction: float, epochs: int, seed: int
) -> tuple[StructureSummary, ...]:
    """Trains in one way and scores each structure in the test cases."""

    def change(plan: Plan) -> Plan:
        name, chosen = plan.configuration(None)
        if seed == 0:
            print(chosen.patch, chosen.why["patch.sampling"], chosen.why["patch.foreground_fraction"], sep="\n", flush=True)
        patch = replace(chosen.patch, patch_size=PATCH, batch_size=4, foreground_fraction=fraction, sampling=sampling)
        network = replace(chosen.network, features=tuple(f // 2 for f in chosen.network.features))
        training = replace(chosen.training, epochs=epochs, steps_per_epoch=STEPS)
        return replace(plan, ladder=(), configurations={name: replace(chosen, network=network, patch=patch, training=training)})

    return learn_and_test(data, work, change, epochs, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # more would wait for each other: the network is small, and the machine may be busy
    lines = ["| sampling | share on structures | seed | Dice of the nodule | missed | extra | Dice of the others |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    rare: dict[tuple[str, float], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            data = make_dataset(Path(folder) / str(seed) / "Dataset001_Nodule", seed)
            for sampling, fraction in VARIANTS:
                work = Path(folder) / f"{seed}{sampling}{fraction}"
                *others, nodule = scores(data, work, sampling, fraction, options.epochs, seed)
                dice = nodule.dice.mean or 0.0
                rare.setdefault((sampling, fraction), []).append(dice)
                rest = float(np.mean([s.dice.mean or 0.0 for s in others]))
                row = (sampling, fraction, seed, f"{dice:.3f}", f"{nodule.n_missed}/{N_EACH}", f"{nodule.n_extra}/{N_EACH}")
                lines.append("| " + " | ".join(map(str, row)) + f" | {rest:.3f} |")
                print(lines[-1], flush=True)
    command = f"bench_sampling.py --epochs {options.epochs} --seeds {options.seeds}"
    means = [f"- {key[0]}, {key[1]}: mean {np.mean(v):.3f}, {min(v):.3f} to {max(v):.3f}" for key, v in rare.items()]
    steps = f"{options.epochs * STEPS} steps of 4 patches of {'×'.join(map(str, PATCH))} each."
    table = [*lines, "", "Dice of the nodule:", "", *means]
    write_report("Rare structures", command, machine("torch"), table, notes=steps, out=options.out)


if __name__ == "__main__":
    main()
