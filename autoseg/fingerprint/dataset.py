"""What a dataset is: sizes, spacings, intensities, structures and landmarks of all cases, gathered and checked in one pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.dataset import Dataset
from autoseg.dataset.reading import CaseReader
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.fingerprint.cache import MeasuredCase, measure_cases, text_digest
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint, Moments
from autoseg.fingerprint.coordinate_flips import find_flipped_cases
from autoseg.fingerprint.landmark_symmetry import check_symmetry
from autoseg.fingerprint.landmarks import LandmarkStatistics, measure_landmarks
from autoseg.fingerprint.laterality import check_laterality
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet, Unit
from autoseg.io import landmark_ending
from autoseg.system.files import write_text
from autoseg.system.records import from_json, to_json
from autoseg.system.workers import CaseReport


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel in the structures of all cases, or near their landmarks, each case with the same weight."""

    mean: float
    std: float
    median: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class StructureStatistics:
    """How often a structure occurs, and its mean size in the cases that contain it (0 where none does)."""

    name: str
    n_cases: int
    mean_voxels: float
    mean_volume_mm3: float


@dataclass(frozen=True)
class Fingerprint:
    """Everything that planning needs to know about a dataset.

    Args:
        landmark_statistics: null in a dataset without landmarks.
        median_relative_size: the share of voxels left by the crop.
        n_empty_cases: those with neither a structure nor a landmark.
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
    cases: tuple[CaseFingerprint, ...]

    @cached_property
    def hash(self) -> str:
        """sha256 of what was seen: names and contents of all cases, channels, labels and landmarks, if there are any."""
        seen = sorted((case.name, case.digest) for case in self.cases)
        landmarks = [{"names": self.landmarks.names, "pairs": self.landmarks.pairs}] if self.landmarks.names else []
        return text_digest(json.dumps([self.channels, asdict(self.labels), seen, *landmarks]))

    @property
    def unseen_structures(self) -> tuple[str, ...]:
        """Structures that no case contains."""
        return tuple(s.name for s in self.structures if s.n_cases == 0)


@dataclass(frozen=True)
class FingerprintReport(CaseReport):
    """A fingerprint, the cases that cannot be used, and what deserves a look.

    Args:
        notices: on cases and structures, as sentences.
    """

    fingerprint: Fingerprint
    notices: tuple[str, ...]


def take_fingerprint(
    dataset: Dataset, folder: Path, *, workers: int | None = None, reader: CaseReader | None = None
) -> FingerprintReport:
    """Reads every case once, in parallel, and writes `folder`/fingerprint.json.

    What was found out about a case is kept in `folder`/cases.jsonl and used again for as long as its files are the same, so
    an interrupted scan resumes and a new case costs one case.

    Args:
        workers: threads, as in `CaseRun`.
        reader: keeps what was read for the preparation that follows, if one does.

    Raises:
        DataError: no case can be used, no case contains a structure or a landmark, or all landmarks lie outside their images.
    """
    scans, failures = measure_cases(dataset, folder / "cases.jsonl", workers=workers, reader=reader)
    if not scans:
        reasons = "; ".join(sorted(f.reason for f in failures)[:3])
        raise DataError("no case can be used", file=dataset.root, found=f"{len(failures)} faulty: {reasons}")
    anything = any(scan.quantiles for scan in scans)
    if dataset.landmarks.names and not (anything and any(scan.fingerprint.landmarks.any_inside for scan in scans)):
        raise _no_landmark_error(dataset, scans)
    if not anything:
        raise _no_structure_error(dataset, len(scans))
    fingerprint = _summarize(dataset, scans)
    path, text = folder / "fingerprint.json", to_json(fingerprint)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return FingerprintReport(fingerprint, tuple(_notices(fingerprint, dataset.unit)), failures=failures)


def load_fingerprint(path: Path) -> Fingerprint:
    """Reads fingerprint.json.

    Raises:
        UsageError: no such file.
        PlanError: malformed or of another schema version.
    """
    if not path.is_file():
        raise UsageError("no fingerprint", file=path, fix="autoseg fingerprint -d DATASET")
    text = path.read_text(encoding="utf-8")
    version = _version(text)
    if version not in (None, SCHEMA_VERSION):
        raise PlanError(
            "the fingerprint has another schema version",
            file=path,
            found=version,
            allowed=SCHEMA_VERSION,
            fix="autoseg fingerprint -d DATASET",
        )
    return from_json(Fingerprint, text, path)


def has_fingerprint(path: Path) -> bool:
    """Whether there is a fingerprint.json, and not one that an older autoseg has taken."""
    return path.is_file() and _version(path.read_text(encoding="utf-8")) in (None, SCHEMA_VERSION)


def _version(text: str) -> object:
    """The schema version that a document says it has; None where it is too broken to say, which `from_json` explains better."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return None
    return document.get("schema_version") if isinstance(document, dict) else None


def _no_landmark_error(dataset: Dataset, scans: Sequence[MeasuredCase]) -> DataError:
    """That no landmark lies in an image, and how far outside those of one case are."""
    outside = [scan.fingerprint for scan in scans if scan.fingerprint.landmarks.outside.any()]
    found = f"none in the images of {len(scans)} cases"
    fix = 'annotate landmarks, or say "landmarks": [] in dataset.json'
    if any(scan.fingerprint.landmarks.any_inside for scan in scans):
        found, fix = (
            f"in {len(scans)} cases landmarks lie only where the images are 0",
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


def _no_structure_error(dataset: Dataset, n_cases: int) -> DataError:
    return DataError(
        "no label map contains a structure",
        file=dataset.root,
        found=f"only background in {n_cases} cases",
        allowed="values " + ", ".join(map(str, dataset.labels.values)),
    )


def _summarize(dataset: Dataset, scans: Sequence[MeasuredCase]) -> Fingerprint:
    cases = tuple(scan.fingerprint for scan in scans)
    full = [scan for scan in scans if scan.quantiles]
    quantiles = np.stack([scan.unpacked for scan in full])
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        landmarks=dataset.landmarks,
        intensities=tuple(
            _pooled_intensity([scan.fingerprint.intensities[c] for scan in full], quantiles[:, c])
            for c in range(len(dataset.channels))
        ),
        structures=tuple(_structure_statistics(name, i, cases) for i, name in enumerate(dataset.labels.names)),
        landmark_statistics=measure_landmarks(dataset.landmarks.names, [c.landmarks for c in cases])
        if dataset.landmarks.names
        else None,
        median_relative_size=float(np.median([np.prod(c.shape_after_crop) / np.prod(c.shape) for c in cases])),
        n_empty_cases=len(scans) - len(full),
        cases=cases,
    )


def _pooled_intensity(moments: Sequence[Moments], quantiles: np.ndarray) -> Intensity:
    """Statistics of the distribution that draws a case first and one of its voxels then.

    nnU-Net draws the same number of voxels from every case, which is this distribution up to chance.
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
    found = [(c.voxels[index], c.voxels[index] * float(np.prod(c.spacing))) for c in cases if c.has_label_map and c.voxels[index]]
    voxels, volume = np.mean(found, axis=0) if found else (0.0, 0.0)
    return StructureStatistics(name, len(found), float(voxels), float(volume))


def _notices(fingerprint: Fingerprint, unit: Unit) -> list[str]:
    cases = fingerprint.cases
    lines = [f"case {case.name}: {case.remark}" for case in cases if case.remark]
    lines += [
        f"case {case.name}: no structure in it: kept as a negative example"
        for case in cases
        if case.has_label_map and not any(case.voxels)
    ]
    for name in fingerprint.unseen_structures:
        lines.append(f"structure '{name}' occurs in no case where the image is not 0: it cannot be learnt")
    found = check_laterality(fingerprint.labels, cases)
    lines += map(str, found.mismatches)
    landmarks = [case.landmarks for case in cases]
    lines += map(str, find_flipped_cases(landmarks))
    lines += [str(replace(odd, unit=unit)) for odd in check_symmetry(fingerprint.landmarks, landmarks)[1]]
    if 2 * found.n_reversed > found.n_cases:
        lines.append(
            f"in {found.n_reversed} of {found.n_cases} cases the structures named left lie to the right: "
            "all headers may be mirrored, or the names be those of the viewer's sides"
        )
    if len(cases) == 1:
        lines.append("a single case: nothing is left to validate on")
    return lines
