"""Measuring the cases of a dataset, each once: what was found out is kept for as long as the files stay the same."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, Dataset, landmark_digest
from autoseg.dataset.reading import CaseReader, check_annotated
from autoseg.errors import DataError, PlanError
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint, measure_case, quantiles
from autoseg.system.files import disk_errors, file_stamp, sha256, write_text
from autoseg.system.records import from_json
from autoseg.system.workers import CaseRun, Failure

N_QUANTILES = 512  # per case and channel: 0.2 % steps, finer than the 0.5 % that the outermost percentile asks for
STAGE = "fingerprint"


@dataclass(frozen=True)
class MeasuredCase:
    """One line of the cache: the facts, what they hold for, and the quantiles that only the summary needs.

    Args:
        meaning: digest of the channels, labels and landmarks that the files were read with.
        stamps: of the files, image channels first, then label map and landmarks.
        quantiles: base64 of (channels, N_QUANTILES) little-endian float32; empty for a case without
            structures or landmarks.
    """

    context: str
    stamps: tuple[str, ...]
    fingerprint: CaseFingerprint
    quantiles: str

    @property
    def unpacked(self) -> np.ndarray:
        """Quantiles as (channels, N_QUANTILES) float32."""
        return np.frombuffer(base64.b64decode(self.quantiles), dtype="<f4").reshape(-1, N_QUANTILES)


def _measure(case: Case, dataset: Dataset, known: MeasuredCase | None, reader: CaseReader | None) -> MeasuredCase:
    """Reads and measures one case, or renews the stamps of `known` if the files hold what they held then.

    Raises:
        DataError: a file is missing or unreadable, NaN, nothing but zeros.
        GeometryError: image and label map, or image and landmarks, do not fit each other.
        LabelError: values that no structure has; names that no landmark has.
    """
    _check_files(case, dataset)
    files = _files(case)
    try:
        stamps = tuple(map(file_stamp, files))
        voxels = [sha256(path) for path in files if path != case.landmarks]
        content = text_digest(" ".join([*voxels, *filter(None, [landmark_digest(case, dataset)])]))
    except OSError as error:
        raise DataError("the file cannot be read", file=error.filename, found=error.strerror) from error
    meaning = _context_digest(dataset)
    if known is not None and known.fingerprint.digest == content:
        return MeasuredCase(meaning, stamps, known.fingerprint, known.quantiles)

    pair = (reader or CaseReader(dataset)).read(case, keep=reader is not None)
    found = measure_case(
        case.name,
        pair.image,
        pair.label_map,
        dataset.labels,
        digest=content,
        remark=pair.remark,
        landmarks=pair.landmarks,
    )
    if found is None:
        raise DataError("the image holds nothing but zeros", file=case.images[0])
    facts, channels = found
    return MeasuredCase(meaning, stamps, facts, _pack([quantiles(v, N_QUANTILES) for v in channels]))


def _files(case: Case) -> tuple[Path, ...]:
    """Image files, label file and file of landmarks, as far as the case has them."""
    return (*case.images, *(path for path in (case.label, case.landmarks) if path))


def _check_files(case: Case, dataset: Dataset) -> None:
    """
    Raises:
        DataError: one that is missing, or nothing to learn from.
    """
    check_annotated(case, dataset)
    kinds = ["image"] * len(case.images) + ["label"] * (case.label is not None) + ["landmark"]
    for what, path in zip(kinds, _files(case)):
        if not path.is_file():
            raise DataError(f"the {what} file is missing", file=path, fix="add it, or take the case out of the dataset")


def measure_cases(
    dataset: Dataset, cache: Path, *, workers: int | None, reader: CaseReader | None
) -> tuple[list[MeasuredCase], tuple[Failure, ...]]:
    """Measure every case that is new or changed, and bring the cache up to date.

    Returns:
        The usable cases in the dataset's order, and those that failed.
    """
    meaning = _context_digest(dataset)
    old = _load_cache(cache)
    known = {name: scan for name, scan in old.items() if scan.context == meaning}
    done = {case.name: known[case.name] for case in dataset.cases if case.name in known and _is_current(case, known[case.name])}
    left = [case for case in dataset.cases if case.name not in done]
    failures: tuple[Failure, ...] = ()
    if left:
        write_text(cache, "".join(map(_line, known.values())))  # whole again, should an interruption have cut the last line
        with disk_errors(cache), open(cache, "a", encoding="utf-8") as handle:

            def work(case: Case) -> MeasuredCase:
                return _measure(case, dataset, known.get(case.name), reader)

            run = CaseRun(work, left, STAGE, workers=workers)
            for case, scan in run:
                done[case.name] = scan
                handle.write(_line(scan))
                handle.flush()
            failures = run.failures
    ordered = [done[case.name] for case in dataset.cases if case.name in done]
    if left or len(old) != len(ordered):
        write_text(cache, "".join(map(_line, ordered)))
    return ordered, failures


def _is_current(case: Case, scan: MeasuredCase) -> bool:
    files = _files(case)
    return all(path.is_file() for path in files) and tuple(map(file_stamp, files)) == scan.stamps


def _load_cache(cache: Path) -> dict[str, MeasuredCase]:
    """Scans by case name, later lines first. A line that is not whole or of an older kind is no scan: the case is read again."""
    scans = {}
    for line in cache.read_text(encoding="utf-8", errors="replace").split("\n") if cache.is_file() else ():
        try:
            scan = from_json(MeasuredCase, line, cache)
        except PlanError:
            continue
        scans[scan.fingerprint.name] = scan
    return scans


def _line(scan: MeasuredCase) -> str:
    return json.dumps(asdict(scan), ensure_ascii=False) + "\n"


def _context_digest(dataset: Dataset) -> str:
    return text_digest(
        json.dumps(
            [
                *(SCHEMA_VERSION, N_QUANTILES, dataset.channels, asdict(dataset.labels)),
                *(dataset.landmarks.names, asdict(dataset.landmark_rules)),
            ]
        )
    )


def text_digest(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _pack(rows: Sequence[np.ndarray]) -> str:
    return base64.b64encode(np.asarray(rows, dtype="<f4").tobytes()).decode("ascii")
