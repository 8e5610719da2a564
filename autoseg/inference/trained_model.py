"""A trained model as users hold it: networks together with the postprocessing that validation chose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from autoseg.dataset import Case, images_in, names_to_learn, split_other_channels
from autoseg.errors import DataError, UsageError, first_few
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.landmarks import Landmarks
from autoseg.inference.input_checks import check_grid, doubts, log_doubts
from autoseg.inference.model import Model, load_model
from autoseg.inference.predict import WORKERS, PredictReport, predict
from autoseg.io import (
    IMAGE_ENDINGS,
    LANDMARK_ENDINGS,
    has_geometry,
    image_ending,
    landmark_ending,
    names_in_words,
    read_grid,
    read_image,
    write_label_map,
)
from autoseg.io import write_landmarks as write_landmark_file
from autoseg.io.in_memory import image_from_memory
from autoseg.io.landmark_files import landmarks_format_ending
from autoseg.nets.device import Device
from autoseg.plan import Plan
from autoseg.postprocessing.component_rules import Rule, apply_rules
from autoseg.runs.record import RunRecord, common_rules, has_numbered_cases, record_scores
from autoseg.runs.training_cases import trained_on
from autoseg.system.arguments import FilePath, as_path, check_type, check_workers
from autoseg.system.progress import log, number_of
from autoseg.system.workers import Failure


@dataclass(frozen=True, eq=False)
class Result:
    """The prediction of a model for one image, postprocessed, on the image's own grid.

    Args:
        label_map: class indices; None of a model without structures.
        landmarks: in world mm (LPS); None of a model without landmarks.
        presence: (N,) probability that each landmark is in the image; None of a model without landmarks.
        probabilities: (K, Z, Y, X) of the classes, background first; None unless they were asked for.
        source: file of the image's first channel; None of an image that came from no file.
        files: of the image, one a channel, as absolute paths.
        in_pixels: coordinates of landmarks are pixels: the image is a picture without a spacing.
    """

    label_map: LabelMap | None
    landmarks: Landmarks | None
    presence: np.ndarray | None
    probabilities: np.ndarray | None
    source: Path | None = None
    files: tuple[Path, ...] = ()
    in_pixels: bool = False

    def __repr__(self) -> str:
        lines = [f"Result{f' of {self.source}' if self.source else ''}"]
        if self.label_map is not None:
            voxels = np.bincount(self.label_map.data.ravel(), minlength=len(self.label_map.labels.names) + 1)[1:].tolist()
            counts = [f"{name} {n}" for name, n in zip(self.label_map.labels.names, voxels)]
            lines.append(f"label map {self.label_map.grid.shape}, voxels: {first_few(counts, 8)}")
        if self.landmarks is not None:
            lines.append(f"landmarks: {int(self.landmarks.present.sum())} of {len(self.landmarks.names)} present")
        if self.probabilities is not None:
            lines.append(f"probabilities {self.probabilities.shape}")
        return "\n  ".join(lines)

    def save(self, path: FilePath) -> Path:
        """Write the label map or the landmarks; the ending of the file name says which, and in which format.

        A label map takes over the header of the image's file, where that is still there and still lies on this grid.

        Returns:
            The path.

        Raises:
            UsageError: an ending of neither, the model has learnt no such thing, or the file is the image itself.
            DataError: the format cannot hold the label map.
            DiskError: nothing can be written there.
        """
        file = as_path(path, "path")
        if file.resolve() in self.files:
            raise UsageError("the prediction would replace its image", file=file, fix="another file name")
        if landmark_ending(file):
            if self.landmarks is None:
                raise UsageError(
                    "the model has learnt no landmarks", file=file, allowed=f"a label map: {', '.join(IMAGE_ENDINGS)}"
                )
            write_landmark_file(file, self.landmarks, pixels=self.in_pixels)
        elif image_ending(file):
            if self.label_map is None:
                raise UsageError(
                    "the model has learnt no structures", file=file, allowed=f"landmarks: {', '.join(LANDMARK_ENDINGS)}"
                )
            write_label_map(file, self.label_map, like=self._header_file(self.label_map.grid))
        else:
            allowed = f"{', '.join(IMAGE_ENDINGS)} for a label map, {', '.join(LANDMARK_ENDINGS)} for landmarks"
            raise UsageError("the file name has no known ending", file=file, allowed=allowed)
        return file

    def _header_file(self, grid: Grid) -> Path | None:
        """The file of the image's first channel, if it is as it was when it was read, as far as its grid tells."""
        try:
            return self.files[0] if self.files and read_grid(self.files[0]) == grid else None
        except DataError:  # it is gone, or something else by now
            return None


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Networks of one or more folds with their plan and postprocessing, ready for images in memory, files and folders.

    Args:
        runs: folders of the folds; their networks are averaged.
        rules: component rules that all folds have chosen in validation.
    """

    model: Model
    runs: tuple[Path, ...]
    records: tuple[RunRecord, ...]
    rules: tuple[Rule, ...]

    def __repr__(self) -> str:
        first = self.records[0]
        lines = [
            f"TrainedModel of {first.dataset}, {first.configuration}: {', '.join(map(str, self.runs))}",
            f"channels: {names_in_words(self.channels)}",
            *names_to_learn(self.plan.data.labels, self.plan.data.landmarks),
            "; ".join(map(record_scores, self.records)),
        ]
        return "\n  ".join(lines)

    @staticmethod
    def load(runs: Sequence[Path], device: Device) -> TrainedModel:
        """The finished folds in these folders as one model; raises as `inference.model.load_model` does."""
        model, records = load_model(runs, device)
        return TrainedModel(model, tuple(runs), records, common_rules(records))

    @property
    def plan(self) -> Plan:
        """The plan that the model follows."""
        return self.model.plan

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that an image must have, in order."""
        return tuple(channel.name for channel in self.plan.data.channels)

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures that label maps show, in order of their class indices, from 1."""
        return self.plan.data.labels.names

    def predict(
        self, image: Any, *, spacing: Sequence[float] | None = None, mirror: bool = True, probabilities: bool = False
    ) -> Result:
        """Predict one image.

        Args:
            image: a path (a file `case_0000.nii.gz` stands for all channel files beside it), a list of
                paths (one a channel), an `autoseg.Image`, a SimpleITK image, or a numpy array of shape
                (C, Z, Y, X), or (Z, Y, X) for one channel, or (Y, X) or (C, Y, X) for a picture.
            spacing: mm along (z, y, x); needed for arrays, and for them only.
            mirror: average over the plan's mirror axes, as `autoseg predict` does.
            probabilities: also return class probabilities.

        Raises:
            UsageError: an image of another type or shape; probabilities of a model without structures.
            DataError, GeometryError: a faulty file; another number of channels than the model's.
            ResourceError: not enough memory.
        """
        if probabilities and not self.structures:
            raise UsageError(
                "the model has learnt landmarks only, so there are no class probabilities", fix="probabilities=False"
            )
        files, whole = self._read(image, spacing)
        source = files[0] if files else None
        check_grid(self.model, whole.grid, source)
        log_doubts(doubts(self.model, whole, ""))
        prediction = self.model.predict_image(whole, mirror, probabilities=probabilities)
        label_map = None
        if prediction.labels is not None:
            indices = apply_rules(prediction.labels, self.rules, self.plan.data.labels)
            label_map = LabelMap(indices, whole.grid, self.plan.data.labels)
        return Result(
            label_map,
            prediction.landmarks,
            prediction.presence,
            prediction.probabilities,
            source,
            files=tuple(path.resolve() for path in files),
            in_pixels=not has_geometry(source) if source else self._is_of_pictures and whole.grid.shape[0] == 1,
        )

    def predict_folder(
        self,
        images: FilePath,
        out: FilePath,
        *,
        mirror: bool = True,
        save_probabilities: bool = False,
        landmarks_format: str | None = None,
        overwrite: bool = False,
        workers: int = WORKERS,
    ) -> PredictReport:
        """Predict every image of a folder into another one, as `autoseg predict` does; what this model has made is skipped.

        Args:
            images: folder of images, or one image.
            mirror: average over the plan's mirror axes.
            save_probabilities: also write class probabilities.
            landmarks_format: 'mrk.json', 'fcsv', 'json' or 'csv'; None is what 3D Slicer opens, or csv for pictures.
            overwrite: predict again what is there already, whatever made it.
            workers: threads that read and write cases; 0 for none.

        Returns:
            How many cases were predicted and skipped; `failures` lists those that could not be.

        Raises:
            UsageError: no image; `out` is the folder of the images; an unknown format.
        """
        check_type(landmarks_format, "landmarks_format", (str, NoneType), "'mrk.json', 'fcsv', 'json', 'csv', or None")
        check_workers(workers)
        ending = landmarks_format_ending(landmarks_format) if landmarks_format else ""
        cases = images_in(as_path(images, "images"), len(self.channels))
        other_channels: tuple[Case, ...] = ()
        if len(self.channels) == 1 and not any(has_numbered_cases(run) for run in self.runs):
            cases, other_channels = split_other_channels(cases)
        if learnt := trained_on(self.runs, cases):
            log.warning(
                "note: the model was trained on %d of these %s (%s), so what it predicts for them says nothing about new ones",
                len(learnt),
                number_of(len(cases), "image"),
                first_few(learnt),
            )
        report = predict(
            self.model,
            self.rules,
            cases,
            as_path(out, "out"),
            mirror=mirror,
            save_probabilities=save_probabilities,
            overwrite=overwrite,
            workers=workers,
            landmarks_ending=ending,
            runs=self.runs,
            dataset=self.records[0].dataset,
        )
        return replace(report, failures=(*report.failures, *map(self._other_channel, other_channels)))

    def _other_channel(self, case: Case) -> Failure:
        """Why an image that looks like one channel of several is not predicted."""
        stem, _, number = case.name.rpartition("_")
        error = DataError(
            f"the model has one channel, {self.channels[0]}, and this looks like channel {int(number)} of the image '{stem}'",
            case=case.name,
            file=case.images[0],
            allowed="one file for each image",
            fix=f"only files with {self.channels[0]} in the folder, or names without _0000 if each is an image of its own",
        )
        return Failure(case.name, "predict", str(error))

    @property
    def _is_of_pictures(self) -> bool:
        """True of a model that has learnt from files without a spacing."""
        return self.records[0].unit == "px"

    def _read(self, image: Any, spacing: Sequence[float] | None) -> tuple[tuple[Path, ...], Image]:
        """The image, and the files of its channels if it came from files."""
        if isinstance(image, (str, os.PathLike)):
            path = Path(image)
            if path.is_dir():
                raise UsageError("a folder is no image", file=path, fix="predict_folder(images, out)")
            paths = images_in(path, len(self.channels))[0].images
        elif isinstance(image, (list, tuple)) and image and all(isinstance(part, (str, os.PathLike)) for part in image):
            paths = tuple(Path(part) for part in image)
        else:
            return (), image_from_memory(image, self.channels, spacing, in_pixels=self._is_of_pictures)
        if spacing is not None:
            raise UsageError("spacing is for numpy arrays, files have their own", file=paths[0], fix="leave out spacing")
        return paths, read_image(paths, self.channels)
