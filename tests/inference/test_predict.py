"""Prediction: on the input's grid, the same every time, one bad file at a time, left stays left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.tiny import Tiny, TinyRuns

from autoseg.api import load_model as load_trained
from autoseg.dataset import Case, images_in, output_path
from autoseg.dataset.predicted import PREDICTED
from autoseg.errors import UsageError
from autoseg.imaging.geometry import AxisMap, Grid
from autoseg.imaging.image import Image
from autoseg.inference import outputs as outputs_module
from autoseg.inference.model import Model, load_model
from autoseg.inference.predict import PredictReport, predict
from autoseg.io import read_grid, read_image, read_label_map, write_image
from autoseg.nets.device import Device
from autoseg.postprocessing.component_rules import Rule


@pytest.fixture(scope="module")
def model(tiny_runs: TinyRuns, float32_cpu: Device) -> Model:
    return load_model(tiny_runs.runs[:1], float32_cpu)[0]


def done(model: Model, images: Path, out: Path, **options: Any) -> PredictReport:
    report = predict(model, (), images_in(images, 1), out, **options)
    assert report.failures == ()
    return report


def test_masks_lie_on_the_grid_of_their_images(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    assert done(model, tiny.data / "imagesTs", tmp_path) == PredictReport(2, 0)
    images = images_in(tiny.data / "imagesTs", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"{c.name}.nii.gz" for c in images), PREDICTED]
    for case in images:
        mask = read_label_map(tmp_path / f"{case.name}.nii.gz", tiny.dataset.labels)
        assert mask.grid == read_grid(case.images[0])
        assert mask.data.max() > 0


def test_predictions_are_reproducible_and_finished_cases_skipped(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    images = tiny.data / "imagesTs"
    done(model, images, tmp_path / "a")
    files = sorted((tmp_path / "a").glob("*.nii.gz"))
    first = [f.read_bytes() for f in files]
    files[1].write_bytes(b"touched by hand")
    assert done(model, images, tmp_path / "a") == PredictReport(0, 2)
    assert files[1].read_bytes() == b"touched by hand"
    files[0].unlink()
    assert done(model, images, tmp_path / "a") == PredictReport(1, 1)
    assert done(model, images, tmp_path / "a", overwrite=True, workers=0) == PredictReport(2, 0)
    assert [f.read_bytes() for f in files] == first


@pytest.fixture(scope="module")
def other(tiny_runs: TinyRuns, float32_cpu: Device) -> Model:
    return load_model(tiny_runs.runs[1:], float32_cpu)[0]


def test_what_another_model_has_made_is_predicted_again(
    tiny: Tiny, model: Model, other: Model, tiny_runs: TinyRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, (one, two) = tiny.data / "imagesTs", tiny_runs.runs
    done(other, images, tmp_path / "other")
    done(model, images, tmp_path / "a", runs=(one,))
    assert done(other, images, tmp_path / "a", runs=(two,)) == PredictReport(2, 0)
    names = ", ".join(case.name for case in images_in(images, 1))
    assert caplog.messages == [f"note: predicted again: 2 cases ({names}); another model made them: {one}"]
    for mask in (tmp_path / "a").glob("*.nii.gz"):
        assert mask.read_bytes() == (tmp_path / "other" / mask.name).read_bytes()
    assert done(other, images, tmp_path / "a", runs=(tmp_path / "moved",)) == PredictReport(0, 2)  # the same one elsewhere
    caplog.clear()
    assert done(model, images, tmp_path / "a", runs=(two,)) == PredictReport(2, 0)  # as after train --extend
    assert done(model, images, tmp_path / "a", runs=(two,), mirror=False) == PredictReport(2, 0)
    cleaned = predict(model, (Rule("largest_foreground"),), images_in(images, 1), tmp_path / "a", runs=(two,), mirror=False)
    reasons = (
        "the model has changed since it made them",
        "they were made with mirroring",
        "the model has changed since it made them",
    )
    assert cleaned == PredictReport(2, 0)
    assert caplog.messages == [f"note: predicted again: 2 cases ({names}); {reason}" for reason in reasons]


def test_probabilities_of_another_model_that_stay_are_noted(
    tiny: Tiny, model: Model, other: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = tiny.data / "imagesTs"
    names = [case.name for case in images_in(images, 1)]
    done(model, images, tmp_path, save_probabilities=True)
    assert done(other, images, tmp_path) == PredictReport(2, 0)
    stay = ", ".join(f"{name}_probabilities.nii.gz" for name in names)
    assert caplog.messages[1:] == [f"note: what another model has made stays beside the new files: {stay}"]
    caplog.clear()
    assert done(other, images, tmp_path, save_probabilities=True) == PredictReport(2, 0)
    assert len(caplog.messages) == 1


def test_a_prediction_of_another_image_is_made_again(
    tiny: Tiny, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.data / "imagesTs", images)
    done(model, images, tmp_path / "out", save_probabilities=True)
    first, second = sorted(images.iterdir())
    shutil.copy2(second, first)
    assert done(model, images, tmp_path / "out", save_probabilities=True) == PredictReport(1, 1)
    masks = sorted((tmp_path / "out").glob("*[0-9].nii.gz"))
    assert np.array_equal(*(read_label_map(mask, tiny.dataset.labels).data for mask in masks))
    assert f"note: predicted again: 1 case ({first.name[:-12]}); their images have changed" in caplog.text


def test_files_of_unknown_origin_are_not_replaced(tiny: Tiny, model: Model, other: Model, tmp_path: Path) -> None:
    cases = images_in(tiny.data / "imagesTs", 1)
    hand, corrected = (tmp_path / f"{case.name}.nii.gz" for case in cases)
    predict(model, (), cases[1:], tmp_path)
    for file in (hand, corrected):
        file.write_bytes(b"by a person")
    for makers, reasons in (
        ((model,), ("predicted.jsonl beside it does not say which model has made this file",)),
        ((other,), ("does not say which", "an earlier prediction was changed by hand, and the model has changed since")),
    ):
        report = predict(makers[0], (), cases, tmp_path)
        assert report.done == 0
        assert [failure.case for failure in report.failures] == [case.name for case in cases[: len(reasons)]]
        for failure, reason in zip(report.failures, reasons):
            assert reason in failure.reason
            assert "fix: another folder, or --overwrite (Python: overwrite=True) to replace" in failure.reason
        assert hand.read_bytes() == corrected.read_bytes() == b"by a person"
    assert done(other, tiny.data / "imagesTs", tmp_path, overwrite=True) == PredictReport(2, 0)
    assert done(other, tiny.data / "imagesTs", tmp_path) == PredictReport(0, 2)


@pytest.mark.parametrize("written", [True, False])
def test_a_prediction_that_was_cut_off_goes_on(
    written: bool, tiny: Tiny, model: Model, other: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between the record that a file is being written and the one that it is."""
    images, usual = tiny.data / "imagesTs", outputs_module.write_label_map
    done(other, images, tmp_path)

    def crash(*arguments: Any, **options: Any) -> None:
        if written:
            usual(*arguments, **options)
        raise SystemError("power failure")

    with monkeypatch.context() as patched:
        patched.setattr(outputs_module, "write_label_map", crash)
        with pytest.raises(RuntimeError, match="power failure"):
            done(model, images, tmp_path, workers=0)
    with open(tmp_path / PREDICTED, "a", encoding="utf-8") as handle:
        handle.write('{"file": "cut o')
    assert done(model, images, tmp_path) == (PredictReport(1, 1) if written else PredictReport(2, 0))
    assert done(model, images, tmp_path, workers=0).skipped >= 1


def test_a_broken_image_is_listed_and_the_others_are_done(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.data / "imagesTs", images)
    (images / "broken_0000.nii.gz").write_bytes(b"no image")
    report = predict(model, (), images_in(images, 1), tmp_path / "out")
    assert (report.done, report.skipped) == (2, 0)
    assert [(f.case, f.stage) for f in report.failures] == [("broken", "predict")]
    assert "cannot be read" in report.failures[0].reason
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_an_image_of_an_odd_name_is_listed_and_nothing_is_written_for_it(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    source = next((tiny.data / "imagesTs").iterdir())
    for name in ("a", "b\x1b[2J", "c" * 240):
        shutil.copy(source, images / f"{name}.nii.gz")
    report = predict(model, (), images_in(images, 1), tmp_path / "out", workers=0)
    assert report.done == 1
    assert [f.case for f in report.failures] == ["b\x1b[2J", "c" * 240]
    assert report.failures[0].reason.startswith("case b\\x1b[2J: a case needs a name that can be a file's; file: ")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.nii.gz", PREDICTED]


def test_another_number_of_channels_is_a_failure(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    one = images_in(tiny.data / "imagesTs", 1)[0]
    report = predict(model, (), [Case("two", one.images * 2, None)], tmp_path)
    assert "number of channels differs" in report.failures[0].reason
    assert not list(tmp_path.iterdir())


def test_probabilities_sum_to_one_and_their_largest_is_the_mask(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    done(model, tiny.data / "imagesTs", tmp_path, save_probabilities=True)
    for case in images_in(tiny.data / "imagesTs", 1):
        written = sitk.ReadImage(str(tmp_path / f"{case.name}_probabilities.nii.gz"))
        probabilities = sitk.GetArrayFromImage(written)
        assert probabilities.shape == (*read_grid(case.images[0]).shape, 5)
        assert written.GetOrigin() == sitk.ReadImage(str(case.images[0])).GetOrigin()
        np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
        assert probabilities.min() >= 0
        mask = read_label_map(tmp_path / f"{case.name}.nii.gz", tiny.dataset.labels).data
        assert (probabilities.argmax(-1) == mask).mean() > 0.999  # voxels between two classes of equal logits aside


def test_rules_are_applied(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    cases = images_in(tiny.data / "imagesTs", 1)[:1]
    sizes = []
    for name, rules in (("raw", ()), ("clean", (Rule("largest_foreground"),))):
        predict(model, rules, cases, tmp_path / name)
        mask = read_label_map(output_path(tmp_path / name, cases[0]), tiny.dataset.labels).data > 0
        labelled = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
        sizes.append(int(sitk.GetArrayFromImage(labelled).max()))
    assert sizes[0] > 1
    assert sizes[1] == 1


@pytest.mark.parametrize(
    ("order", "flip"),
    [((0, 1, 2), (False, False, True)), ((0, 1, 2), (True, True, False)), ((2, 0, 1), (True, False, True))],
)
def test_left_stays_left_however_the_file_is_oriented(
    tiny: Tiny, model: Model, tmp_path: Path, order: tuple[int, int, int], flip: tuple[bool, bool, bool]
) -> None:
    source = images_in(tiny.data / "imagesTs", 1)[0].images[0]
    image, axes = read_image([source], ["MRI"]), AxisMap(order, flip)
    turned = Image(np.ascontiguousarray(axes.apply(image.data)), image.grid.reoriented(axes), ("MRI",))
    write_image(tmp_path / "in" / "plain_0000.nii.gz", image)
    write_image(tmp_path / "in" / "turned_0000.nii.gz", turned)
    done(model, tmp_path / "in", tmp_path / "out")
    plain, label_map = (read_label_map(tmp_path / "out" / f"{n}.nii.gz", tiny.dataset.labels) for n in ("plain", "turned"))
    assert label_map.grid.corner_distance(turned.grid) < 1e-3
    assert len(np.unique(plain.data)) > 2
    assert np.array_equal(axes.apply(plain.data), label_map.data)


def test_an_ensemble_of_folds_predicts(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    both, _ = load_model(tiny_runs.runs, float32_cpu)
    assert done(both, tiny.data / "imagesTs", tmp_path) == PredictReport(2, 0)


def test_prediction_without_mirroring_takes_fewer_passes(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    passes = []
    counter = model.networks[0].register_forward_hook(lambda *_: passes.append(1))
    done(model, tiny.data / "imagesTs", tmp_path / "a")
    with_mirror = len(passes)
    done(model, tiny.data / "imagesTs", tmp_path / "b", mirror=False)
    counter.remove()
    assert with_mirror == 2 ** len(tiny.configuration.inference.mirror_axes) * (len(passes) - with_mirror)


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a.nii.gz", "a.nii.gz"), ("a.nrrd", "a.nrrd"), ("a.mha", "a.mha"), ("a.mhd", "a.mha"), ("a.nhdr", "a.nrrd")],
)
def test_masks_keep_the_format_of_the_image_except_detached_headers(image: str, mask: str) -> None:
    assert output_path(Path("out"), Case("a", (Path(image),), None)) == Path("out") / mask


def test_results_do_not_go_among_the_images(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.data / "imagesTs", images)
    contents = {p.name: p.read_bytes() for p in images.iterdir()}
    with pytest.raises(UsageError, match=r"among the images.*-o a folder of its own"):
        predict(model, (), images_in(images, 1), images / ".." / "images", overwrite=True)
    assert {p.name: p.read_bytes() for p in images.iterdir()} == contents


def test_missing_probabilities_are_added_and_the_mask_stays(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    images = tiny.data / "imagesTs"
    done(model, images, tmp_path)
    mask = min(tmp_path.glob("*.nii.gz"))
    mask.write_bytes(b"touched by hand")
    assert done(model, images, tmp_path, save_probabilities=True) == PredictReport(2, 0)
    assert mask.read_bytes() == b"touched by hand"
    assert len(list(tmp_path.glob("*.nii.gz"))) == 4
    assert done(model, images, tmp_path, save_probabilities=True) == PredictReport(0, 2)


def test_a_model_of_volumes_refuses_a_slice(tiny: Tiny, model: Model, tmp_path: Path) -> None:
    grid = Grid.from_spacing((1, 20, 20), (1, 1, 1))
    write_image(tmp_path / "images" / "slice.mha", Image(np.ones((1, 1, 20, 20), np.float32), grid, ("MRI",)))
    report = predict(model, (), images_in(tmp_path / "images", 1), tmp_path / "out")
    assert "a single slice cannot be predicted by a model of volumes" in report.failures[0].reason
    assert "found: shape (1, 20, 20)" in report.failures[0].reason


def test_a_second_channel_is_no_case_of_a_model_with_one(tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path) -> None:
    source = min((tiny.data / "imagesTs").iterdir())
    (tmp_path / "images").mkdir()
    for name in ("one_0000", "two_0000", "two_0001"):
        shutil.copy(source, tmp_path / "images" / f"{name}.nii.gz")
    report = load_trained(tiny_runs.runs[0], device="cpu").predict_folder(tmp_path / "images", tmp_path / "out")
    assert (report.done, [f.case for f in report.failures]) == (1, ["two_0000", "two_0001"])
    assert "case two_0001: the model has one channel, MRI, and this looks like channel 1 of the image 'two'" in (
        report.failures[1].reason
    )
    assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["one.nii.gz"]


def test_numbered_images_are_cases_of_a_model_that_was_trained_on_such(tiny: Tiny, tiny_runs: TinyRuns, tmp_path: Path) -> None:
    source = min((tiny.data / "imagesTs").iterdir())
    shutil.copytree(tiny_runs.runs[0], tmp_path / "fold_0")
    shutil.copy(source, tmp_path / "fold_0" / "validation" / "scan_0001.nii.gz")
    (tmp_path / "images").mkdir()
    for name in ("two_0000", "two_0001"):
        shutil.copy(source, tmp_path / "images" / f"{name}.nii.gz")
    report = load_trained(tmp_path / "fold_0", device="cpu").predict_folder(tmp_path / "images", tmp_path / "out")
    assert report == PredictReport(2, 0)
