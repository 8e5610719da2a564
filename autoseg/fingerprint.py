"""What a dataset is: sizes, spacings, intensities and structures of all cases, gathered and checked in one pass."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.batch import Failure, run_cases
from autoseg.dataset import Case, Dataset
from autoseg.errors import DataError, PlanError, UsageError
from autoseg.files import disk_errors, sha256, stamp, write_text
from autoseg.geometry import Box, Triple
from autoseg.labels import LabelSet
from autoseg.pairs import PairReader
from autoseg.records import from_json, to_json

SCHEMA_VERSION = 1
N_QUANTILES = 512  # per case and channel: 0.2 % steps, finer than the 0.5 % that the outermost percentile asks for
STAGE = "fingerprint"


@dataclass(frozen=True)
class Moments:
    """Intensities of one channel in the structures of one case."""

    mean: float
    variance: float
    min: float
    max: float


@dataclass(frozen=True)
class CaseFacts:
    """One case, axes in canonical (z, y, x) order; spacing in mm.

    Args:
        digest: sha256 over the image and label files.
        shape_after_crop: of the box around everything that is not 0 in some channel.
        voxels: of each structure, in the order of the label set.
        intensities: one per channel; none for a case without structures.
        remark: what is odd about the case but does not prevent its use, or empty.
    """

    name: str
    digest: str
    spacing: tuple[float, float, float]
    shape: Triple
    shape_after_crop: Triple
    voxels: tuple[int, ...]
    intensities: tuple[Moments, ...]
    remark: str


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel in the structures of all cases, each case with the same weight."""

    mean: float
    std: float
    median: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class StructureFacts:
    """How often a structure occurs, and its mean size in the cases that contain it (0 where none does)."""

    name: str
    n_cases: int
    mean_voxels: float
    mean_volume_mm3: float


@dataclass(frozen=True)
class Fingerprint:
    """Everything that planning needs to know about a dataset. `median_relative_size` is the share of voxels left by the crop."""

    schema_version: int
    dataset: str
    channels: tuple[str, ...]
    labels: LabelSet
    intensities: tuple[Intensity, ...]
    structures: tuple[StructureFacts, ...]
    median_relative_size: float
    n_empty_cases: int
    cases: tuple[CaseFacts, ...]

    @cached_property
    def hash(self) -> str:
        """sha256 of what was seen: names and contents of all cases, channels and labels."""
        seen = sorted((case.name, case.digest) for case in self.cases)
        return _digest(json.dumps([self.channels, asdict(self.labels), seen]))

    @property
    def unseen_structures(self) -> tuple[str, ...]:
        """Structures that no case contains."""
        return tuple(s.name for s in self.structures if s.n_cases == 0)


def take_fingerprint(
    dataset: Dataset,
    folder: Path,
    failures: list[Failure],
    notices: list[str],
    workers: int | None = None,
    reader: PairReader | None = None,
) -> Fingerprint:
    """Reads every case once, in parallel, and writes `folder`/fingerprint.json.

    What was found out about a case is kept in `folder`/cases.jsonl and used again for as long as its files are the same, so
    an interrupted scan resumes and a new case costs one case.

    Args:
        failures: cases that cannot be used are added here.
        notices: cases and structures that deserve a look are added here, as sentences.
        workers: threads, as in `batch.run_cases`.
        reader: keeps what was read for the preparation that follows, if one does.

    Raises:
        DataError: no case can be used, or no case contains a structure.
    """
    before = len(failures)
    scans = _scan_all(dataset, folder / "cases.jsonl", failures, workers, reader)
    if not scans:
        reasons = "; ".join(sorted(f.reason for f in failures[before:])[:3])
        raise DataError("no case can be used", file=dataset.root, found=f"{len(failures) - before} faulty: {reasons}")
    if not any(scan.quantiles for scan in scans):
        raise DataError(
            "no label map contains a structure",
            file=dataset.root,
            found=f"only background in {len(scans)} cases",
            allowed="values " + ", ".join(map(str, dataset.labels.values)),
        )
    fingerprint = _summary(dataset, scans)
    notices += _notices(fingerprint)
    path, text = folder / "fingerprint.json", to_json(fingerprint)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return fingerprint


def load_fingerprint(path: Path) -> Fingerprint:
    """Reads fingerprint.json.

    Raises:
        UsageError: no such file.
        PlanError: malformed or of another schema version.
    """
    if not path.is_file():
        raise UsageError("no fingerprint", file=path, fix="autoseg fingerprint -d DATASET")
    fingerprint = from_json(Fingerprint, path.read_text(encoding="utf-8"), path)
    if fingerprint.schema_version != SCHEMA_VERSION:
        raise PlanError(
            "the fingerprint has another schema version",
            file=path,
            found=fingerprint.schema_version,
            allowed=SCHEMA_VERSION,
            fix="autoseg fingerprint -d DATASET",
        )
    return fingerprint


@dataclass(frozen=True)
class _Scan:
    """One line of the cache: the facts, what they hold for, and the quantiles that only the summary needs.

    Args:
        meaning: digest of the channels and labels that the files were read with.
        stamps: of the files, image channels first.
        quantiles: base64 of (channels, N_QUANTILES) little-endian float32; empty for a case without structures.
    """

    meaning: str
    stamps: tuple[str, ...]
    facts: CaseFacts
    quantiles: str


def _scan_case(case: Case, dataset: Dataset, known: _Scan | None, reader: PairReader | None) -> _Scan:
    """Reads and measures one case, or renews the stamps of `known` if the files hold what they held then.

    Raises:
        DataError: an image or label file is missing or unreadable, NaN, nothing but zeros.
        GeometryError: image and label map do not fit each other.
        LabelError: values that no structure has.
    """
    files = _files(case)
    try:
        stamps, digest = tuple(map(stamp, files)), _digest(" ".join(map(sha256, files)))
    except OSError as error:
        raise DataError("the file cannot be read", file=error.filename, found=error.strerror) from error
    meaning = _meaning(dataset)
    if known is not None and known.facts.digest == digest:
        return _Scan(meaning, stamps, known.facts, known.quantiles)

    pair = (reader or PairReader(dataset)).read(case, keep=reader is not None)
    image, label_map = pair.image, pair.label_map
    box = Box.around(np.any(image.data, axis=0))
    if box is None:
        raise DataError("the image holds nothing but zeros", file=case.images[0])
    values = label_map.data[box.slices]
    inside = (values > 0) & (values != dataset.labels.ignore_index)
    counts = np.bincount(values[inside], minlength=dataset.labels.n_classes)[1:]
    channels = [np.sort(channel[box.slices][inside]) for channel in image.data] if inside.any() else []
    axes = image.grid.canonical_axes()
    grid = image.grid.reoriented(axes)
    facts = CaseFacts(
        name=case.name,
        digest=digest,
        spacing=grid.spacing,
        shape=grid.shape,
        shape_after_crop=tuple(box.shape[a] for a in axes.order),  # type: ignore[arg-type]
        voxels=tuple(int(n) for n in counts),
        intensities=tuple(_moments(v) for v in channels),
        remark=pair.remark,
    )
    return _Scan(meaning, stamps, facts, _pack([_quantiles(v) for v in channels]))


def _files(case: Case) -> tuple[Path, ...]:
    """Image files and label file, all of which exist."""
    if case.label is None:
        raise DataError("the case has no label file", case=case.name, fix="add one, or take the case out of the dataset")
    for what, path in (*(("image", p) for p in case.images), ("label", case.label)):
        if not path.is_file():
            raise DataError(f"the {what} file is missing", file=path, fix="add it, or take the case out of the dataset")
    return (*case.images, case.label)


def _moments(ordered: np.ndarray) -> Moments:
    return Moments(
        mean=float(ordered.mean(dtype=np.float64)),
        variance=float(ordered.var(dtype=np.float64)),
        min=float(ordered[0]),
        max=float(ordered[-1]),
    )


def _quantiles(ordered: np.ndarray) -> np.ndarray:
    """N_QUANTILES values that stand for equal shares of a sorted sample: the middle of each share."""
    middle = (2 * np.arange(N_QUANTILES, dtype=np.int64) + 1) * ordered.size // (2 * N_QUANTILES)
    return ordered[middle]


def _summary(dataset: Dataset, scans: Sequence[_Scan]) -> Fingerprint:
    cases = tuple(scan.facts for scan in scans)
    full = [scan for scan in scans if scan.quantiles]
    quantiles = np.stack([_unpack(scan.quantiles) for scan in full])
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        intensities=tuple(
            _mixture([scan.facts.intensities[c] for scan in full], quantiles[:, c]) for c in range(len(dataset.channels))
        ),
        structures=tuple(_structure(name, i, cases) for i, name in enumerate(dataset.labels.names)),
        median_relative_size=float(np.median([np.prod(c.shape_after_crop) / np.prod(c.shape) for c in cases])),
        n_empty_cases=len(scans) - len(full),
        cases=cases,
    )


def _mixture(moments: Sequence[Moments], quantiles: np.ndarray) -> Intensity:
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


def _structure(name: str, index: int, cases: Sequence[CaseFacts]) -> StructureFacts:
    found = [(c.voxels[index], c.voxels[index] * float(np.prod(c.spacing))) for c in cases if c.voxels[index]]
    voxels, volume = np.mean(found, axis=0) if found else (0.0, 0.0)
    return StructureFacts(name, len(found), float(voxels), float(volume))


def _notices(fingerprint: Fingerprint) -> list[str]:
    cases = fingerprint.cases
    lines = [f"case {case.name}: {case.remark}" for case in cases if case.remark]
    lines += [f"case {case.name}: no structure in it: kept as a negative example" for case in cases if not any(case.voxels)]
    lines += [f"structure '{name}' occurs in no case: it cannot be learnt" for name in fingerprint.unseen_structures]
    if len(cases) == 1:
        lines.append("a single case: nothing is left to validate on")
    return lines


def _scan_all(
    dataset: Dataset, cache: Path, failures: list[Failure], workers: int | None, reader: PairReader | None
) -> list[_Scan]:
    """One scan per usable case, in the dataset's order; the cache follows."""
    meaning = _meaning(dataset)
    old = _load_cache(cache)
    known = {name: scan for name, scan in old.items() if scan.meaning == meaning}
    done = {case.name: known[case.name] for case in dataset.cases if case.name in known and _untouched(case, known[case.name])}
    left = [case for case in dataset.cases if case.name not in done]
    if left:
        write_text(cache, "".join(map(_line, known.values())))  # whole again, should an interruption have cut the last line
        with disk_errors(cache), open(cache, "a", encoding="utf-8") as handle:

            def work(case: Case) -> _Scan:
                return _scan_case(case, dataset, known.get(case.name), reader)

            for case, scan in run_cases(work, left, STAGE, failures, workers):
                done[case.name] = scan
                handle.write(_line(scan))
                handle.flush()
    ordered = [done[case.name] for case in dataset.cases if case.name in done]
    if left or len(old) != len(ordered):
        write_text(cache, "".join(map(_line, ordered)))
    return ordered


def _untouched(case: Case, scan: _Scan) -> bool:
    files = [*case.images, *([case.label] if case.label else [])]
    return all(path.is_file() for path in files) and tuple(map(stamp, files)) == scan.stamps


def _load_cache(cache: Path) -> dict[str, _Scan]:
    """Scans by case name, later lines first. A line that is not whole or of an older kind is no scan: the case is read again."""
    scans = {}
    for line in cache.read_text(encoding="utf-8", errors="replace").split("\n") if cache.is_file() else ():
        try:
            scan = from_json(_Scan, line, cache)
        except PlanError:
            continue
        scans[scan.facts.name] = scan
    return scans


def _line(scan: _Scan) -> str:
    return json.dumps(asdict(scan), ensure_ascii=False) + "\n"


def _meaning(dataset: Dataset) -> str:
    return _digest(json.dumps([SCHEMA_VERSION, N_QUANTILES, dataset.channels, asdict(dataset.labels)]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pack(rows: Sequence[np.ndarray]) -> str:
    return base64.b64encode(np.asarray(rows, dtype="<f4").tobytes()).decode("ascii")


def _unpack(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), dtype="<f4").reshape(-1, N_QUANTILES)
