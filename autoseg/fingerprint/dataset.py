"""Fingerprint of a dataset: sizes, spacings, intensities, structures and landmarks, measured and
checked in one pass.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.dataset import Dataset
from autoseg.dataset.reading import CaseReader
from autoseg.errors import DataError, PlanError, UsageError, first_few
from autoseg.fingerprint.cache import MeasuredCase, measure_cases, text_digest
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint, Moments
from autoseg.fingerprint.checks import case_fault
from autoseg.fingerprint.coordinate_flips import find_flipped_cases
from autoseg.fingerprint.grid_ceilings import GridCeiling, measure_ceilings
from autoseg.fingerprint.landmark_symmetry import check_symmetry
from autoseg.fingerprint.landmarks import LandmarkStatistics, measure_landmarks
from autoseg.fingerprint.laterality import check_laterality
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, Unit
from autoseg.io import landmark_ending
from autoseg.system.documents import read_json
from autoseg.system.files import write_text
from autoseg.system.names import check_name
from autoseg.system.progress import log
from autoseg.system.records import build_record, to_json
from autoseg.system.workers import CaseReport, Failure

_AGAIN = "delete the file, then autoseg fingerprint -d DATASET"


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel in the structures of all cases, or near their landmarks, each case
    with the same weight.
    """

    mean: float
    std: float
    median: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class StructureStatistics:
    """Number of cases with a structure, and its mean size in these (0 where there are none)."""

    name: str
    n_cases: int
    mean_voxels: float
    mean_volume_mm3: float


@dataclass(frozen=True)
class Fingerprint:
    """Everything that planning needs to know about a dataset.

    Args:
        landmark_statistics: null in a dataset without landmarks.
        median_relative_size: share of the voxels of a case that the crop keeps, median over the
            cases.
        n_empty_cases: cases with neither a structure nor a landmark.
        ceilings: what coarser grids can hold of the structures; empty without label maps.
    """

    schema_version: int
    dataset: str
    channels: tuple[str, ...]
    labels: LabelSet
    landmarks: LandmarkSet
    intensities: tuple[Intensity, ...]
    structures: tuple[StructureStatistics, ...]
    landmark_statistics: LandmarkStatistics | None
    median_relative_size: float
    n_empty_cases: int
    ceilings: tuple[GridCeiling, ...]
    cases: tuple[CaseFingerprint, ...]

    @cached_property
    def hash(self) -> str:
        """Digest (sha256) of the data: names and contents of all cases, channels, labels and
        landmarks, if there are any.
        """
        cases = sorted((case.name, case.digest) for case in self.cases)
        landmarks = [{"names": self.landmarks.names, "pairs": self.landmarks.pairs}] if self.landmarks.names else []
        return text_digest(json.dumps([self.channels, asdict(self.labels), cases, *landmarks]))

    @property
    def unseen_structures(self) -> tuple[str, ...]:
        """Structures that no case contains."""
        return tuple(s.name for s in self.structures if s.n_cases == 0)


@dataclass(frozen=True)
class FingerprintReport(CaseReport):
    """A fingerprint, the cases that cannot be used, and notices about the data.

    Args:
        notices: on cases and structures, as sentences.
    """

    fingerprint: Fingerprint
    notices: tuple[str, ...]


def take_fingerprint(
    dataset: Dataset, folder: Path, *, workers: int | None = None, reader: CaseReader | None = None
) -> FingerprintReport:
    """Read every case once, in parallel, and write `folder`/fingerprint.json.

    The measurements of a case are kept in `folder`/cases.jsonl and used again for as long as its
    files are the same, so an interrupted run resumes and a new case costs one case.

    Args:
        workers: threads, as in `CaseRun`.
        reader: keeps loaded cases for the preprocessing that follows, if one does.

    Raises:
        DataError: no case can be used, no case contains a structure or a landmark, or all landmarks
            lie outside their images.
    """
    path = folder / "fingerprint.json"
    if path.is_file() and not has_fingerprint(path):
        log.info("%s was taken by another version of autoseg: it is taken anew", path)
    cases, failures = measure_cases(dataset, folder / "cases.jsonl", workers=workers, reader=reader)
    if not cases:
        raise _no_case_error(dataset, failures)
    any_foreground = any(case.quantiles for case in cases)
    if dataset.landmarks.names and not (any_foreground and any(case.fingerprint.landmarks.any_inside for case in cases)):
        raise _no_landmark_error(dataset, [case.fingerprint for case in cases])
    if not any_foreground:
        raise _no_structure_error(dataset, len(cases))
    fingerprint = _summarize(dataset, cases)
    ceilings = _known_ceilings(path, fingerprint.hash)
    if ceilings is None:
        ceilings = measure_ceilings(dataset, fingerprint.cases, workers=workers)
    fingerprint = replace(fingerprint, ceilings=ceilings)
    text = to_json(fingerprint)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
    return FingerprintReport(fingerprint, tuple(_notices(fingerprint, dataset.unit)), failures=failures)


def load_fingerprint(path: Path) -> Fingerprint:
    """Read fingerprint.json.

    Raises:
        UsageError: no such file.
        PlanError: malformed or of another schema version.
    """
    if not path.is_file():
        raise UsageError("no fingerprint", file=path, fix="autoseg fingerprint -d DATASET")
    document = read_json(path, PlanError, what="the fingerprint", fix=_AGAIN)
    version = _version(document)
    if version not in (None, SCHEMA_VERSION):
        raise PlanError(
            "the fingerprint has another schema version",
            file=path,
            found=version,
            allowed=SCHEMA_VERSION,
            fix="autoseg fingerprint -d DATASET",
        )
    fingerprint = build_record(Fingerprint, document, path, fix=_AGAIN)
    _check(fingerprint, path)
    return fingerprint


def _check(fingerprint: Fingerprint, path: Path) -> None:
    """Check that the parts of a fingerprint fit each other.

    Raises:
        PlanError: they do not; names the key.
    """
    n_channels, n_structures, n_landmarks = map(
        len, (fingerprint.channels, fingerprint.labels.names, fingerprint.landmarks.names)
    )
    counts = {
        "channels": (n_channels, max(1, n_channels)),
        "intensities": (len(fingerprint.intensities), n_channels),
        "structures": (len(fingerprint.structures), n_structures if fingerprint.structures else 0),  # nnU-Net's have none
        "cases": (len(fingerprint.cases), max(1, len(fingerprint.cases))),
        "landmark_statistics": (fingerprint.landmark_statistics is not None, bool(n_landmarks)),
        **{f"ceilings[{i}].dice": (len(c.dice), n_structures) for i, c in enumerate(fingerprint.ceilings)},
    }
    for key, (count, allowed) in counts.items():
        if count != allowed:
            raise PlanError(f"'{key}' does not fit the rest", file=path, found=count, allowed=allowed, fix=_AGAIN)
    if fingerprint.landmark_statistics and len(fingerprint.landmark_statistics.landmarks) != n_landmarks:
        raise PlanError("'landmark_statistics.landmarks' does not fit the rest", file=path, allowed=n_landmarks, fix=_AGAIN)
    if not 0 < fingerprint.median_relative_size <= 1:
        found = fingerprint.median_relative_size
        raise PlanError("'median_relative_size' cannot be used", file=path, found=found, allowed="above 0, 1 at most", fix=_AGAIN)
    negative = [f"intensities[{i}].std: {s.std}" for i, s in enumerate(fingerprint.intensities) if s.std < 0]
    negative += [str(s) for s in fingerprint.structures if min(s.n_cases, s.mean_voxels, s.mean_volume_mm3) < 0]
    negative += [str(c) for c in fingerprint.ceilings if min(c.factor, *(0 if d is None else d for d in c.dice)) < 0]
    if negative:
        raise PlanError("a measurement is negative", file=path, found=negative[0], allowed="0 or more", fix=_AGAIN)
    for i, case in enumerate(fingerprint.cases):
        check_name(case.name, "a case", PlanError, path, f"in cases[{i}]")
        if fault := case_fault(case, n_channels, n_structures, n_landmarks):
            raise PlanError(f"'cases[{i}]' has a measurement that cannot be", file=path, found=fault, fix=_AGAIN)


def _known_ceilings(path: Path, fingerprint_hash: str) -> tuple[GridCeiling, ...] | None:
    """Ceilings in the fingerprint that lies there, if it is of the same data; a broken file is measured anew."""
    try:
        earlier = load_fingerprint(path) if has_fingerprint(path) else None
    except PlanError:
        return None
    return earlier.ceilings if earlier and earlier.hash == fingerprint_hash else None


def has_fingerprint(path: Path) -> bool:
    """True if there is a fingerprint.json, and not one of another schema version; a broken one is there, too."""
    if not path.is_file():
        return False
    try:
        return _version(read_json(path)) in (None, SCHEMA_VERSION)
    except DataError:  # loading it says why
        return True


def _version(document: object) -> int | None:
    """Schema version of a document; None where it has none, which `build_record` explains better."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    return version if isinstance(version, int) else None


def _no_landmark_error(dataset: Dataset, cases: Sequence[CaseFingerprint]) -> DataError:
    """Error for landmarks that all lie outside their images, or where these are 0; it quotes the
    remark on one case outside.
    """
    outside = [case for case in cases if case.landmarks.outside.any()]
    found = f"none in the images of {len(cases)} cases"
    fix = 'annotate landmarks, or say "landmarks": [] in dataset.json'
    if any(case.landmarks.any_inside for case in cases):
        found, fix = (
            f"in {len(cases)} cases landmarks lie only where the images are 0",
            "check that images and landmarks belong together",
        )
    if outside:
        found += f"; case {outside[0].name}: {outside[0].remark}"
        if any(c.landmarks and not landmark_ending(c.landmarks) for c in dataset.cases):
            fix = "correct origin, spacing or direction in the headers of the label maps"
        else:
            fix = (
                "state the coordinate system (LPS, RAS or voxel) in the files of landmarks: the column 'space' of a .csv, "
                "'coordinateSystem' of a .mrk.json, '# CoordinateSystem' of a .fcsv, 'space' of a .json"
            )
    return DataError("no case shows a landmark", file=dataset.root, found=found, fix=fix)


def _no_case_error(dataset: Dataset, failures: Sequence[Failure]) -> DataError:
    labels = [case.label for case in dataset.cases if case.label is not None]
    if labels and not any(label.is_file() for label in labels):
        folder = labels[0].parent
        return DataError(
            "no case has a label map" if folder.is_dir() else "the folder of the label maps is missing",
            file=folder,
            found=first_few(sorted(path.name for path in (folder if folder.is_dir() else dataset.root).iterdir())) or "nothing",
            allowed=first_few([label.name for label in labels], 2),
            fix="training learns from label maps: put them there, named like the images",
        )
    reasons = "; ".join(sorted(f.reason for f in failures)[:3])
    return DataError("no case can be used", file=dataset.root, found=f"{len(failures)} faulty: {reasons}")


def _no_structure_error(dataset: Dataset, n_cases: int) -> DataError:
    return DataError(
        "no label map contains a structure",
        file=dataset.root,
        found=f"only background in {n_cases} cases",
        allowed="values " + ", ".join(map(str, dataset.labels.values)),
    )


def _summarize(dataset: Dataset, measured: Sequence[MeasuredCase]) -> Fingerprint:
    """Fingerprint of the dataset from its measured cases, of which one at least has a structure or
    a landmark.
    """
    cases = tuple(case.fingerprint for case in measured)
    with_foreground = [case for case in measured if case.quantiles]
    quantiles = np.stack([case.quantile_values for case in with_foreground])
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        landmarks=dataset.landmarks,
        intensities=tuple(
            _pooled_intensity([case.fingerprint.intensities[c] for case in with_foreground], quantiles[:, c])
            for c in range(len(dataset.channels))
        ),
        structures=tuple(_structure_statistics(name, i, cases) for i, name in enumerate(dataset.labels.names)),
        landmark_statistics=measure_landmarks(dataset.landmarks.names, [c.landmarks for c in cases])
        if dataset.landmarks.names
        else None,
        median_relative_size=float(np.median([np.prod(c.shape_after_crop) / np.prod(c.shape) for c in cases])),
        n_empty_cases=len(measured) - len(with_foreground),
        ceilings=(),
        cases=cases,
    )


def _pooled_intensity(moments: Sequence[Moments], quantiles: np.ndarray) -> Intensity:
    """Statistics of the intensities of all cases, each with the same weight: of a voxel drawn at
    random from a random case.

    nnU-Net draws the same number of voxels from every case, which is this distribution up to
    chance.
    """
    means = np.array([m.mean for m in moments])
    variance = np.mean([m.variance for m in moments]) + means.var()  # within the cases and between them
    low, median, high = np.percentile(quantiles.astype(np.float64), (0.5, 50, 99.5))
    return Intensity(
        mean=float(means.mean()),
        std=float(np.sqrt(variance)),
        median=float(median),
        min=min(m.min for m in moments),
        max=max(m.max for m in moments),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )


def _structure_statistics(name: str, index: int, cases: Sequence[CaseFingerprint]) -> StructureStatistics:
    """Statistics of the structure at `index` of the label set."""
    showing = [c for c in cases if c.has_label_map and c.voxels[index]]
    sizes = [(c.voxels[index], c.voxels[index] * float(np.prod(c.spacing))) for c in showing]
    voxels, volume = np.mean(sizes, axis=0) if sizes else (0.0, 0.0)
    return StructureStatistics(name, len(sizes), float(voxels), float(volume))


def _notices(fingerprint: Fingerprint, unit: Unit) -> list[str]:
    """Sentences on cases and structures that deserve a look."""
    cases = fingerprint.cases
    lines = [f"case {case.name}: {case.remark}" for case in cases if case.remark]
    lines += [
        f"case {case.name}: no structure in the label map: kept as a negative example"
        for case in cases
        if case.has_label_map and not any(case.voxels)
    ]
    for name in fingerprint.unseen_structures:
        lines.append(f"structure '{name}' occurs in no case where the image is not 0: it cannot be learnt")
    laterality = check_laterality(fingerprint.labels, cases)
    lines += map(str, laterality.mismatches)
    landmarks = [case.landmarks for case in cases]
    lines += map(str, find_flipped_cases(landmarks))
    lines += [str(replace(pair, unit=unit)) for pair in check_symmetry(fingerprint.landmarks, landmarks)[1]]
    if 2 * laterality.n_reversed > laterality.n_cases:
        lines.append(
            f"in {laterality.n_reversed} of {laterality.n_cases} cases the structures named left lie to the right: "
            "all headers may be mirrored, or the names may mean the viewer's left and right"
        )
    if len(cases) == 1:
        lines.append("a single case: none remains for validation")
    return lines
