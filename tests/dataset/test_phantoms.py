from __future__ import annotations

from pathlib import Path

import numpy as np

from autoseg.dataset import images_in, open_dataset
from autoseg.dataset.phantoms import LABELS, SHAPE, SPACING, make_phantom, make_phantoms
from autoseg.io import read_image, read_label_map
from autoseg.system.files import sha256

SMALL = (16, 32, 40)


def test_a_phantom_has_every_structure_on_its_own_side() -> None:
    for seed in range(5):
        image, label = make_phantom(np.random.default_rng(seed))
        assert image.grid == label.grid
        assert image.grid.shape == SHAPE
        assert image.grid.spacing == SPACING
        for index, name in enumerate(LABELS.names, start=1):
            places = np.argwhere(label.data == index)
            assert len(places) > 20
            side = image.grid.index_to_world(places)[:, 0].mean() - image.grid.index_to_world(np.array(SHAPE)[None] / 2)[0, 0]
            assert (side > 0) == name.startswith("left")  # x grows towards the patient's left


def test_stones_are_brighter_than_kidneys_than_air() -> None:
    image, label = make_phantom(np.random.default_rng(0))
    means = [float(image.data[0][label.data == i].mean()) for i in range(5)]
    assert means[0] < min(means[1:3]) < max(means[1:3]) < min(means[3:])
    assert image.data.min() >= 0


def test_the_dataset_can_be_opened_and_read(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "Dataset001_Phantom", 2, 1, shape=SMALL)
    dataset = open_dataset(root)
    assert (dataset.name, dataset.channels, dataset.labels) == ("Dataset001_Phantom", ("MRI",), LABELS)
    assert [c.name for c in dataset.cases] == ["phantom_000", "phantom_001"]
    for case in dataset.cases:
        image, label = read_image(case.images, dataset.channels), read_label_map(case.label, dataset.labels)
        assert image.grid == label.grid
        assert image.grid.shape == SMALL
        assert set(np.unique(label.data)) == {0, 1, 2, 3, 4}
    assert [c.name for c in images_in(root / "imagesTs", 1)] == ["phantom_002"]
    assert (root / "labelsTs" / "phantom_002.nii.gz").is_file()


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> list[str]:
        root = make_phantoms(tmp_path / name, 1, 1, seed, SMALL)
        return [sha256(p) for p in sorted(root.rglob("*.nii.gz"))]

    assert digests("a", 0) == digests("b", 0)
    assert digests("a", 0) != digests("c", 1)
