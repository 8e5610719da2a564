"""Cache of measured cases: each case of a dataset is measured once, and again only when its files
change.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset import Case, Dataset, landmark_digest
from autoseg.dataset.reading import CaseReader, check_annotated
from autoseg.errors import DataError, PlanError
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint, measure_case, quantiles
from autoseg.fingerprint.checks import case_fault
from autoseg.imaging.intensities import check_not_blank
from autoseg.io import data_files
from autoseg.system.files import disk_errors, file_stamp, sha256, write_text
from autoseg.system.names import check_name
from autoseg.system.progress import log
from autoseg.system.records import from_json
from autoseg.system.workers import CaseRun, Failure

N_QUANTILES = 512  # per case and channel: 0.2 % steps, finer than the 0.5 % that the outermost percentile asks for
COMMAND = "fingerprint"


@dataclass(frozen=True)
class MeasuredCase:
    """One line of the cache: a case's measurements, what they are valid for, and the quantiles that
    only the summary needs.

    Args:
        context: digest of the channels, labels and landmarks that the files were read with.
        stamps: of the files, image channels first, then label map and landmarks.
        quantiles: base64 of (channels, N_QUANTILES) little-endian float32; empty for a case without
            structures or landmarks.
    """

    context: str
    stamps: tuple[str, ...]
    fingerprint: CaseFingerprint
    quantiles: str

    @property
    def quantile_values(self) -> np.ndarray:
        """Quantiles as (channels, N_QUANTILES) float32."""
        return np.frombuffer(base64.b64decode(self.quantiles), dtype="<f4").reshape(-1, N_QUANTILES)

    def is_sound(self, dataset: Dataset) -> bool:
        """True if the measurements can be those of a case of the dataset."""
        n_channels = len(dataset.channels)
        bytes_a_channel = 4 * N_QUANTILES
        try:
            n_bytes = len(base64.b64decode(self.quantiles, validate=True))
        except ValueError:
            return False
        fitting = n_bytes == (n_channels * bytes_a_channel if self.fingerprint.intensities else 0)
        faults = case_fault(self.fingerprint, n_channels, len(dataset.labels.names), len(dataset.landmarks.names))
        return fitting and faults is None and bool(np.isfinite(self.quantile_values).all())


def _measure(case: Case, dataset: Dataset, context: str, cached: MeasuredCase | None, reader: CaseReader | None) -> MeasuredCase:
    """Read and measure one case, or renew the stamps of `cached` if the contents of the files are
    the same.

    Args:
        context: as in `MeasuredCase`.

    Raises:
        DataError: a file is missing or unreadable, NaN, a blank image.
        GeometryError: image and label map, or image and landmarks, do not fit each other.
        LabelError: values that no structure has; names that no landmark has.
    """
    _check_files(case, dataset)
    files = _files(case)
    try:
        stamps = tuple(map(file_stamp, files))
        digests = [sha256(path) for path in files if path != case.landmarks]
        digest = text_digest(" ".join([*digests, *filter(None, [landmark_digest(case, dataset)])]))
    except OSError as error:
        raise DataError("the file cannot be read", file=error.filename, found=error.strerror) from error
    if cached is not None and cached.fingerprint.digest == digest:
        return MeasuredCase(context, stamps, cached.fingerprint, cached.quantiles)

    loaded = (reader or CaseReader(dataset)).read(case, keep=reader is not None)
    check_not_blank(loaded.image.data, case.images[0])
    measured = measure_case(
        case.name,
        loaded.image,
        loaded.label_map,
        dataset.labels,
        digest=digest,
        remark=loaded.remark,
        landmarks=loaded.landmarks,
    )
    fingerprint, channels = measured
    return MeasuredCase(context, stamps, fingerprint, _pack([quantiles(v, N_QUANTILES) for v in channels]))


def _files(case: Case) -> tuple[Path, ...]:
    """Image files, label file and file of landmarks, as far as the case has them, then those that hold the voxels of others."""
    files = (*case.images, *(path for path in (case.label, case.landmarks) if path))
    return (*files, *(file for path in files for file in data_files(path)))


def _check_files(case: Case, dataset: Dataset) -> None:
    """Check that the files of a case exist, and that it is annotated.

    Raises:
        DataError: a name that can be no file's; a file is missing, or the case has nothing to learn from.
    """
    check_name(case.name, "a case", DataError, case.images[0])
    check_annotated(case, dataset)
    kinds = ["image"] * len(case.images) + ["label"] * (case.label is not None) + ["landmark"]
    for kind, path in zip(kinds, _files(case)):
        try:
            status = path.stat()
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            problem = f"the {kind} file is missing" if missing else f"the {kind} file cannot be read"
            found = None if missing else error.strerror
            raise DataError(problem, file=path, found=found, fix="add it, or take the case out of the dataset") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"the {kind} file is none", file=path, found="a folder or a device", fix="put the file there")


def measure_cases(
    dataset: Dataset, cache: Path, *, workers: int | None, reader: CaseReader | None
) -> tuple[list[MeasuredCase], tuple[Failure, ...]]:
    """Measure every case that is new or changed, and bring the cache up to date.

    Returns:
        The usable cases in the dataset's order, and those that failed.
    """
    context = _context_digest(dataset)
    cached = _load_cache(cache, context, dataset)
    valid = {name: measured for name, measured in cached.items() if measured.context == context}
    done = {case.name: valid[case.name] for case in dataset.cases if case.name in valid and _is_current(case, valid[case.name])}
    remaining = [case for case in dataset.cases if case.name not in done]
    failures: tuple[Failure, ...] = ()
    if remaining:
        write_text(cache, "".join(map(_line, valid.values())))  # whole again, should an interruption have cut the last line
        with disk_errors(cache), open(cache, "a", encoding="utf-8") as handle:

            def work(case: Case) -> MeasuredCase:
                return _measure(case, dataset, context, valid.get(case.name), reader)

            run = CaseRun(work, remaining, COMMAND, workers=workers)
            for case, measured in run:
                done[case.name] = measured
                handle.write(_line(measured))
                handle.flush()
            failures = run.failures
    ordered = [done[case.name] for case in dataset.cases if case.name in done]
    if remaining or len(cached) != len(ordered):
        write_text(cache, "".join(map(_line, ordered)))
    return ordered, failures


def _is_current(case: Case, cached: MeasuredCase) -> bool:
    """True if the files of a case have the stamps that they had when it was measured."""
    files = _files(case)
    return all(os.path.isfile(path) for path in files) and tuple(map(file_stamp, files)) == cached.stamps


def _load_cache(cache: Path, context: str, dataset: Dataset) -> dict[str, MeasuredCase]:
    """Measured cases by name; of several lines of a case the last counts.

    A line that is cut off, damaged or of another schema is left out: its case is measured again. A note says so, unless it is
    the last line alone, which an interruption may have cut.
    """
    cases = {}
    damaged = 0
    lines = cache.read_bytes().decode("utf-8", errors="replace").split("\n") if cache.is_file() else [""]
    for line in lines[:-1]:
        try:
            measured = from_json(MeasuredCase, line, cache)
        except PlanError:
            damaged += 1
            continue
        if measured.context != context or measured.is_sound(dataset):
            cases[measured.fingerprint.name] = measured
        else:
            damaged += 1
    if damaged:
        what = "line cannot be read and is" if damaged == 1 else "lines cannot be read and are"
        log.warning("note: %d %s measured again: damaged, or of another version; %s", damaged, what, cache)
    return cases


def _line(measured: MeasuredCase) -> str:
    return json.dumps(asdict(measured), ensure_ascii=False) + "\n"


def _context_digest(dataset: Dataset) -> str:
    """Digest of what decides how files are read and measured: the schema, channels, labels and
    landmarks.
    """
    return text_digest(
        json.dumps(
            [
                *(SCHEMA_VERSION, N_QUANTILES, dataset.channels, asdict(dataset.labels)),
                *(dataset.landmarks.names, asdict(dataset.landmark_rules)),
            ]
        )
    )


def text_digest(text: str) -> str:
    """Digest (sha256) of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _pack(rows: Sequence[np.ndarray]) -> str:
    return base64.b64encode(np.asarray(rows, dtype="<f4").tobytes()).decode("ascii")
