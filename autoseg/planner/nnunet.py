"""nnU-Net's dataset_fingerprint.json as a fingerprint of ours, so that images it has measured need not be read again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.dataset import Description
from autoseg.errors import DataError
from autoseg.fingerprint.case import SCHEMA_VERSION, CaseFingerprint
from autoseg.fingerprint.dataset import Fingerprint, Intensity
from autoseg.imaging.geometry import Triple
from autoseg.imaging.landmarks import NO_LANDMARKS
from autoseg.system.documents import shown
from autoseg.system.records import is_finite

FILE = "dataset_fingerprint.json"
LEAST, MOST = 1e-9, 1e9  # of a spacing (mm), a shape (voxels) or a share
STATISTICS = ("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5")


def from_nnunet(name: str, description: Description, document: dict[str, Any], source: str | Path) -> Fingerprint:
    """Reads what planning needs.

    nnU-Net keeps neither names and contents of cases nor the sizes of structures: those are empty.

    Args:
        name: of the dataset.
        description: channels and labels of its dataset.json.
        document: its dataset_fingerprint.json.
        source: that file, for messages.

    Raises:
        DataError: a key is missing or holds something else than nnU-Net writes; there are landmarks, which it knows nothing of.
    """
    if description.landmarks.names:
        raise DataError(
            "nnU-Net's fingerprint does not tell where landmarks are",
            file=source,
            found=f"{len(description.landmarks)} landmarks in dataset.json",
            fix="plan from the images: autoseg plan_and_preprocess -d DATASET",
        )
    spacings = _triples(_entry(document, "spacings", source), "spacings", source)
    shapes = _triples(_entry(document, "shapes_after_crop", source), "shapes_after_crop", source)
    if not spacings or len(spacings) != len(shapes):
        raise DataError(
            "the fingerprint needs a spacing and a shape for each case",
            file=source,
            found=f"{len(spacings)} spacings, {len(shapes)} shapes_after_crop",
        )
    intensities = _entry(document, "foreground_intensity_properties_per_channel", source)
    share = _entry(document, "median_relative_size_after_cropping", source)
    return Fingerprint(
        schema_version=SCHEMA_VERSION,
        dataset=name,
        channels=description.channels,
        labels=description.labels,
        landmarks=NO_LANDMARKS,
        intensities=tuple(_intensity(_entry(intensities, str(i), source), source) for i in range(len(description.channels))),
        structures=(),
        landmark_statistics=None,
        median_relative_size=_positive(share, "median_relative_size_after_cropping", source),
        n_empty_cases=0,
        ceilings=(),
        cases=tuple(_case(i, spacing, shape) for i, (spacing, shape) in enumerate(zip(spacings, shapes))),
    )


def _case(index: int, spacing: tuple[float, float, float], shape: tuple[float, float, float]) -> CaseFingerprint:
    size: Triple = (int(shape[0]), int(shape[1]), int(shape[2]))
    digest = hashlib.sha256(repr((spacing, size)).encode()).hexdigest()  # tells datasets apart, if not contents
    return CaseFingerprint(
        name=f"case_{index:04d}",
        digest=digest,
        spacing=spacing,
        shape=size,
        shape_after_crop=size,
        voxels=(),
        lateral_positions=(),
        intensities=(),
        tails=(),
        remark="",
    )


def _intensity(statistics: Any, source: str | Path) -> Intensity:
    values = [_entry(statistics, key, source) for key in STATISTICS]
    wrong = [f"{k}: {shown(v)}" for k, v in zip(STATISTICS, values) if not _is_number(v)]
    if wrong:
        raise DataError("the intensities must be finite numbers", file=source, found=", ".join(wrong))
    return Intensity(*map(float, values))


def _entry(mapping: Any, key: str, source: str | Path) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise DataError(f"the fingerprint has no '{key}'", file=source, fix="copy the file from nnU-Net's folder again")
    return mapping[key]


def _triples(rows: Any, key: str, source: str | Path) -> list[tuple[float, float, float]]:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise DataError(f"'{key}' must list three numbers a case", file=source, allowed="[[z, y, x], ...]")
    return [_triple(row, key, source) for row in rows]


def _triple(row: Sequence[Any], key: str, source: str | Path) -> tuple[float, float, float]:
    z, y, x = (_positive(value, key, source) for value in row)
    return z, y, x


def _positive(value: Any, key: str, source: str | Path) -> float:
    if not _is_number(value) or not LEAST <= value <= MOST:
        allowed = f"a number above 0, {LEAST:g} to {MOST:g}"
        raise DataError(f"'{key}' must hold positive numbers", file=source, found=shown(value), allowed=allowed)
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and is_finite(value)
