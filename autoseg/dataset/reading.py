"""Image, label map and landmarks of a case, read and checked together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from autoseg.dataset import Case, Dataset, load_landmarks, outside_remark
from autoseg.errors import DataError, GeometryError
from autoseg.imaging.alignment import check_alignment, reordered
from autoseg.imaging.image import Image, LabelMap
from autoseg.imaging.landmarks import Landmarks
from autoseg.io import geometry_remarks, read_image, read_label_map

KEEP_BYTES = 1 << 30  # of voxels that one command may hand to the next; with small cases opening files costs more than the rest


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """Image, label map and landmarks of a case.

    Args:
        label_map: on the image's voxels; None for a case that has landmarks only.
        landmarks: all unlabelled for a case that has a label map only; None in a dataset without
            landmarks.
        remark: what is odd about it but does not prevent its use, or empty.
    """

    image: Image
    label_map: LabelMap | None
    landmarks: Landmarks | None
    remark: str

    @property
    def nbytes(self) -> int:
        return self.image.data.nbytes + (self.label_map.data.nbytes if self.label_map else 0)


@dataclass
class CaseReader:
    """Reader of the cases of a dataset that can keep them for one more reading.

    A case that was read with `keep` is returned once more without reading, as far as `KEEP_BYTES`
    reach: the fingerprint and the preprocessing that follows it need the same voxels.
    """

    dataset: Dataset
    _kept: dict[str, LoadedCase] = field(default_factory=dict)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, case: Case, keep: bool = False) -> LoadedCase:
        """Read a case and check that its parts fit each other.

        Raises:
            DataError: nothing to learn from; missing or unreadable file, NaN, wrong number of
                channels.
            GeometryError: image and label map, or image and landmarks, do not fit each other.
            LabelError: values that no structure has; names that no landmark has.
        """
        with self._lock:
            loaded = self._kept.pop(case.name, None)
            if loaded is not None:
                self._bytes -= loaded.nbytes
                return loaded
        check_annotated(case, self.dataset)
        image = read_image(case.images, self.dataset.channels)
        label_map = reordered(read_label_map(case.label, self.dataset.labels), image.grid) if case.label else None
        files = (*case.images, *([case.label] if case.label else []))
        remarks: list[str | None] = list(dict.fromkeys(remark for path in files for remark in geometry_remarks(path)))
        try:
            remarks.append(check_alignment(image, label_map) if label_map else None)
        except GeometryError as error:
            error.file = str(case.label)
            raise
        landmarks = load_landmarks(case, self.dataset, image.grid) if self.dataset.landmarks.names else None
        remarks.append(outside_remark(case, landmarks, image.grid) if landmarks else None)
        loaded = LoadedCase(image, label_map, landmarks, "; ".join(r for r in remarks if r))
        with self._lock:
            if keep and self._bytes + loaded.nbytes <= KEEP_BYTES:
                self._kept[case.name] = loaded
                self._bytes += loaded.nbytes
        return loaded


def check_annotated(case: Case, dataset: Dataset) -> None:
    """Check that a case has something to learn from.

    Raises:
        DataError: the case has neither a label file nor landmarks, as far as the dataset has
            structures or landmarks.
    """
    if (case.label and dataset.labels.names) or (case.landmarks and dataset.landmarks.names):
        return
    lacking = "no label file"
    if dataset.landmarks.names:
        lacking = "neither a label file nor landmarks" if dataset.labels.names else "no landmarks"
    raise DataError(f"the case has {lacking}", case=case.name, fix="add one, or take the case out of the dataset")
