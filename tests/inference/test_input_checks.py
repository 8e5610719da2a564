"""Images unlike those of the training: refused or noted, never predicted without a word."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import Tiny, TinyRuns

import autoseg
from autoseg.errors import GeometryError, ResourceError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.inference import memory_check
from autoseg.inference.input_checks import doubts, spacing_factor
from autoseg.inference.model import Model, load_model
from autoseg.io import read_image, write_image
from autoseg.nets.device import Device


@pytest.fixture(scope="module")
def model(tiny_runs: TinyRuns, float32_cpu: Device) -> Model:
    return load_model(tiny_runs.runs[:1], float32_cpu)[0]  # of voxels of (3, 2, 2) mm


@pytest.fixture(scope="module")
def image(tiny: Tiny) -> Image:
    return read_image(min((tiny.data / "imagesTs").iterdir()), tiny.dataset.channels)


def scaled(image: Image, factor: float) -> Image:
    spacing = [step * factor for step in image.grid.spacing]
    return replace(image, grid=Grid.from_spacing(image.grid.shape, spacing))


@pytest.mark.parametrize(("spacing", "factor"), [((3, 2, 2), 1), ((12, 8, 8), 4), ((0.3, 0.2, 0.2), 10), ((24, 2, 2), 2)])
def test_factor_is_the_mean_over_axes(model: Model, spacing: tuple[float, float, float], factor: float) -> None:
    assert spacing_factor(Grid.from_spacing((4, 5, 6), spacing), model.configuration) == pytest.approx(factor)


def test_slices_count_in_their_plane_only(model: Model) -> None:
    flat = replace(model.configuration, space=replace(model.configuration.space, spacing_mm=(2.0, 2.0), slice_axis=0))
    assert spacing_factor(Grid.from_spacing((1, 5, 6), (1, 1, 1)), flat) == pytest.approx(2)


@pytest.mark.parametrize(("factor", "is_noted"), [(1, False), (3, False), (0.1, True)])
def test_voxels_of_another_size_are_noted(model: Model, image: Image, factor: float, is_noted: bool) -> None:
    problems = [doubt.problem for doubt in doubts(model, scaled(image, factor), "a")]
    assert problems == ["voxels are of another size than the model has learnt, so the prediction may be wrong"][: int(is_noted)]


def test_the_finest_grid_of_the_plan_counts_too(model: Model, image: Image) -> None:
    """A coarse rung of the ladder is trained on the same images."""
    name, fine = model.plan.configuration(None)
    coarse = replace(fine, space=replace(fine.space, spacing_mm=(30.0, 20.0, 20.0)))
    plan = replace(model.plan, configurations={name: fine, "3d_coarse": coarse})
    alone = replace(model, configuration=coarse, plan=replace(model.plan, configurations={"3d_coarse": coarse}))
    assert len(doubts(alone, image, "a")) == 1
    assert doubts(replace(alone, plan=plan), image, "a") == ()


def test_voxels_so_large_that_the_image_would_grow_beyond_measure_are_refused(model: Model, image: Image) -> None:
    with pytest.raises(GeometryError, match=r"times its voxels on the plan's grid.*; found: \(3000, 1500, 1500\) mm; .*its unit"):
        model.predict_image(scaled(image, 1000), mirror=False)


def test_an_image_that_does_not_fit_into_memory_is_refused_before_it_is_predicted(
    model: Model, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "_CHECKED_GB", 0.0)
    monkeypatch.setattr(memory_check, "free_ram_gb", lambda: 0.001)
    with pytest.raises(ResourceError, match=r"not enough memory to predict the image; found: .* GB for 5 maps of 12 × 24 × 30"):
        model.predict_image(image, mirror=False)
    monkeypatch.setattr(memory_check, "free_ram_gb", lambda: None)  # systems that do not tell
    assert model.predict_image(image, mirror=False).labels is not None


def test_one_note_on_all_cases_of_a_folder(
    model: Model, tiny_runs: TinyRuns, image: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(4):
        write_image(tmp_path / "in" / f"c{i}.mha", scaled(image, 0.1))
    trained = autoseg.load_model(tiny_runs.runs[0], device="cpu")
    with caplog.at_level(logging.WARNING, "autoseg"):
        assert trained.predict_folder(tmp_path / "in", tmp_path / "out").done == 4
    (sizes,) = caplog.messages
    assert sizes.startswith("note in 4 cases (c0, c1, c2 and 1 more): voxels are of another size than the model has learnt")
    assert "expected: about (3, 2, 2) mm" in sizes


@pytest.mark.parametrize("value", [0.0, 5.0, -1e30])
def test_a_blank_image_fails_alone(tiny_runs: TinyRuns, image: Image, tmp_path: Path, value: float) -> None:
    write_image(tmp_path / "in" / "a.mha", image)
    write_image(tmp_path / "in" / "b.mha", replace(image, data=np.full_like(image.data, value)))
    report = autoseg.load_model(tiny_runs.runs[0], device="cpu").predict_folder(tmp_path / "in", tmp_path / "out")
    assert report.done == 1
    (failure,) = report.failures
    assert failure.reason.startswith("case b: the image is blank; ")
    assert f"found: {value:g} everywhere; fix: export it again" in failure.reason
    assert [path.name for path in (tmp_path / "out").glob("*.mha")] == ["a.mha"]


def test_a_damaged_voxel_changes_nothing_far_away(model: Model, image: Image) -> None:
    whole = model.predict_image(image, mirror=False).labels
    data = image.data.copy()
    data[0, 0, 0, 0] = 3e38
    damaged = model.predict_image(replace(image, data=data), mirror=False).labels
    assert whole is not None
    assert damaged is not None
    assert (whole == damaged).mean() > 0.97


def test_an_image_in_memory_is_noted_as_well(tiny_runs: TinyRuns, image: Image, caplog: pytest.LogCaptureFixture) -> None:
    trained = autoseg.load_model(tiny_runs.runs[0], device="cpu")
    trained.predict(image)
    assert caplog.messages == []
    trained.predict(image.data, spacing=(0.3, 0.15, 0.15))
    assert [message[:50] for message in caplog.messages] == ["note: voxels are of another size than the model ha"]
