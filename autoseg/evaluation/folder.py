"""A folder of predictions against references: label maps, landmarks or both, whichever dataset and folder have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.dataset import Case, Dataset, LandmarkRules, case_landmarks, images_in, load_landmarks, load_predicted
from autoseg.errors import AutosegError, UsageError, first_few, nearest
from autoseg.evaluation.label_maps import STAGE, Report, StructureSummary, evaluate_label_maps
from autoseg.evaluation.landmark_summary import LandmarkReport, PointSummary
from autoseg.evaluation.landmarks import ComparedLandmarks, evaluate_landmarks
from autoseg.evaluation.metrics import NSD_TOLERANCE_MM
from autoseg.io import has_geometry, image_ending, read_grid
from autoseg.system.progress import log, number_of
from autoseg.system.workers import CaseReport, Failure

TEST_IMAGES = "imagesTs"  # where datasets keep the images of cases that are not for training


@dataclass(frozen=True)
class Evaluation:
    """Reports on label maps and on landmarks; None where there are none to compare."""

    label_maps: Report | None
    landmarks: LandmarkReport | None

    def __repr__(self) -> str:
        lines = [f"Evaluation of {number_of(self.n_cases, 'case')}"]
        if self.label_maps:
            scores = [f"{s.structure} {_number(s.dice.mean)}" for s in self.label_maps.summary.structures]
            lines.append(f"mean Dice {_number(self.mean_dice)}: {first_few(scores, 8)}")
        if self.landmarks:
            points = self.landmarks.summary
            errors = [f"{p.landmark} {_number(p.mean.value)}" for p in points.landmarks]
            lines.append(f"mean error {_number(self.mean_error)} {points.unit}: {first_few(errors, 8)}")
        lines += [f"not compared: {number_of(len(self.failures), 'case')}"] if self.failures else []
        return "\n  ".join(lines)

    @property
    def mean_dice(self) -> float | None:
        """Mean over structures of their mean Dice; None where no structure was compared."""
        return self.label_maps.summary.mean_dice if self.label_maps else None

    @property
    def mean_error(self) -> float | None:
        """Mean over landmarks of their mean error, mm or pixels; None where no landmark was compared."""
        return self.landmarks.summary.mean_macro.value if self.landmarks else None

    def __getitem__(self, name: str) -> StructureSummary | PointSummary:
        """The scores of a structure or a landmark over all cases.

        Raises:
            KeyError: neither was compared under this name.
        """
        structures = self.label_maps.summary.structures if self.label_maps else ()
        points = self.landmarks.summary.landmarks if self.landmarks else ()
        scores = {s.structure: s for s in structures} | {p.landmark: p for p in points}
        if name not in scores:
            raise KeyError(f"no scores of '{name}'{nearest(name, scores)}; there are those of {', '.join(scores)}")
        return scores[name]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The cases that could not be compared."""
        return tuple(failure for report in (self.label_maps, self.landmarks) if report for failure in report.failures)

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases that were compared."""
        return tuple(sorted({case.case for report in (self.label_maps, self.landmarks) if report for case in report.cases}))

    @property
    def n_cases(self) -> int:
        """Number of the cases that were compared."""
        return max(report.n_cases for report in (self.label_maps, self.landmarks) if report is not None)

    def raise_if_failed(self) -> None:
        """Raise an error that names the first failures, if there is one, for scripts that must not go on.

        Raises:
            DataError: a case failed.
        """
        CaseReport(failures=self.failures).raise_if_failed()


def evaluate_folder(
    dataset: Dataset,
    predictions: Path,
    *,
    out: Path,
    tolerance_mm: float = NSD_TOLERANCE_MM,
    references: Path | None = None,
    images: Path | None = None,
    workers: int | None = None,
    radii: Sequence[float] | None = None,
) -> Evaluation:
    """Score a folder of predictions; `evaluate_label_maps` and `evaluate_landmarks` describe the files in `out`.

    Args:
        references: folder of reference label maps or landmarks, or both; None for those of the dataset,
            where cases that were not predicted are no failures. Label maps in the folder show
            structures where structures were predicted; else they may show landmarks as spots, if
            the dataset names their values.
        images: folder of the images that landmarks belong to; None for those of the dataset, its imagesTs included.
        radii: within which landmarks count as found, see `landmark_summary.summarize_points`.

    Returns:
        The scores; `failures` lists references without a prediction, and unreadable files.

    Raises:
        UsageError: a folder is missing, or no case name is in both.
        DataError: two files of one folder have the same case name.
    """
    for folder in (predictions, references):
        if folder is not None and not folder.is_dir():
            raise UsageError("no such folder", file=folder)
    if references is None:
        _note_own_references(dataset)
    label_report, landmark_report = None, None
    cases = _image_cases(dataset, images) if dataset.landmarks.names else {}
    predicted = case_landmarks(predictions, cases) if cases else {}
    has_structures = bool(dataset.labels.names) and (
        not predicted or all(_has_maps(folder) for folder in (predictions, references) if folder)
    )
    reference_files = {c.name: c.landmarks for c in dataset.cases if c.landmarks}
    if predicted and references:
        reference_files = case_landmarks(references, cases, LandmarkRules() if has_structures else dataset.landmark_rules)
    if predicted and has_structures and not reference_files:
        spots = "; its label maps are taken to show structures" if dataset.landmark_rules.values else ""
        log.warning("note: landmarks are not scored: no file of them in %s%s", references or dataset.root, spots)
    elif predicted and not reference_files:
        raise UsageError(
            "no reference landmarks of a known case",
            file=references or dataset.root,
            found=first_few(sorted(path.name for path in references.iterdir())) if references else f"{len(dataset.cases)} cases",
            allowed=f"files such as {next(iter(cases))}.mrk.json, landmarks.csv, or label maps with spots of known values",
            fix='name files like their images; for spots -d names a dataset whose dataset.json has "landmarks": {"nose": 1}',
        )
    elif predicted:
        landmark_report = _evaluate_points(
            dataset, cases, reference_files, predicted, out=out, only_predicted=references is None, radii=radii
        )
    if has_structures:
        label_files = references or {c.name: c.label for c in dataset.cases if c.label is not None}
        label_report = evaluate_label_maps(
            label_files,
            predictions,
            dataset.labels,
            out=out,
            tolerance_mm=tolerance_mm,
            workers=workers,
            only_predicted=references is None,
        )
    if label_report is None and landmark_report is None:
        raise UsageError(
            "no landmarks of a known case in the folder",
            file=predictions,
            found=first_few(sorted(path.name for path in predictions.iterdir())),
            allowed=f"files such as {next(iter(cases), 'case')}.mrk.json, or landmarks.csv",
            fix="name files like their images; -i names the images' folder if they are not in the dataset",
        )
    return Evaluation(label_report, landmark_report)


def _note_own_references(dataset: Dataset) -> None:
    files = [file for case in dataset.cases for file in (case.label, case.landmarks) if file is not None]
    folders = first_few(sorted({str(file.parent) for file in files}), 2)
    log.warning("note: no references are given, so they are those of %s: %s", dataset.name, folders)


def _number(value: float | None) -> str:
    return "--" if value is None else f"{value:.3g}"


def _has_maps(folder: Path) -> bool:
    return any(image_ending(path) for path in folder.iterdir())


def _evaluate_points(
    dataset: Dataset,
    cases: Mapping[str, Case],
    reference_files: Mapping[str, Path],
    predicted: Mapping[str, Path],
    *,
    out: Path,
    only_predicted: bool,
    radii: Sequence[float] | None,
) -> LandmarkReport:
    """Score the landmarks of the cases that have a reference and a prediction.

    Args:
        cases: with the images.
        reference_files, predicted: files of references and of predictions, by case.

    Raises:
        UsageError: no case is in both, or errors would be in mm in some cases and in pixels in others.
    """
    names = [name for name in reference_files if name in predicted]
    if not names:
        raise UsageError(
            "no file of predicted landmarks has the name of a reference",
            found=first_few(list(predicted)),
            allowed=first_few(list(reference_files)),
            fix="name each prediction like its reference, apart from the file ending",
        )
    missing = () if only_predicted else sorted(set(reference_files) - set(predicted))
    unpredicted = [Failure(name, STAGE, f"case {name}: no predicted landmarks; fix: predict this case") for name in missing]

    def compared() -> Iterator[ComparedLandmarks | Failure]:
        for name in sorted(names):
            try:
                grid = read_grid(cases[name].images[0])
                reference = load_landmarks(replace(cases[name], landmarks=reference_files[name]), dataset, grid)
                prediction = load_predicted(cases[name], predicted[name], dataset.landmarks, grid)
            except AutosegError as error:
                error.case = error.case or name
                yield Failure(name, STAGE, str(error))
                continue
            yield ComparedLandmarks(name, reference, prediction, grid)

    pictures = {not has_geometry(cases[name].images[0]): name for name in names}
    if len(pictures) > 1:
        raise UsageError(
            "errors would be in mm for some cases and in pixels for others",
            found=f"{cases[pictures[False]].images[0].name} and {cases[pictures[True]].images[0].name}",
            fix="put predictions of volumes and of pictures into folders of their own, and evaluate each",
        )
    report = evaluate_landmarks(compared(), out, radii=radii, unit="px" if True in pictures else "mm")
    return replace(report, failures=(*unpredicted, *report.failures))


def _image_cases(dataset: Dataset, images: Path | None) -> dict[str, Case]:
    """Cases by name, for their images."""
    if images is not None:
        return {c.name: c for c in images_in(images, len(dataset.channels))}
    cases = {c.name: c for c in dataset.cases}
    test_images = dataset.root / TEST_IMAGES
    if test_images.is_dir():
        cases = {c.name: c for c in images_in(test_images, len(dataset.channels))} | cases
    return cases
