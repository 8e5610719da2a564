"""Image and label map of a case, read and checked together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from autoseg.dataset import Case, Dataset
from autoseg.errors import DataError, GeometryError
from autoseg.image import Image, LabelMap
from autoseg.io import read_image, read_label_map
from autoseg.prepare import check_pair

KEEP_BYTES = 1 << 30  # of voxels that one stage may hand to the next; with small cases opening files costs more than the rest


@dataclass(frozen=True, eq=False)
class Pair:
    """What lies on the same voxels; `remark` is what is odd about it but does not prevent its use, or empty."""

    image: Image
    label_map: LabelMap
    remark: str

    @property
    def nbytes(self) -> int:
        return self.image.data.nbytes + self.label_map.data.nbytes


@dataclass
class PairReader:
    """Reads the cases of a dataset. What was read with `keep` is handed out once more without reading, as far as
    `KEEP_BYTES` reach: the fingerprint and the preparation that follows it need the same voxels."""

    dataset: Dataset
    _kept: dict[str, Pair] = field(default_factory=dict)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, case: Case, keep: bool = False) -> Pair:
        """
        Raises:
            DataError: no label file; missing or unreadable file, NaN, wrong number of channels.
            GeometryError: image and label map do not fit each other.
            LabelError: values that no structure has.
        """
        with self._lock:
            pair = self._kept.pop(case.name, None)
            if pair is not None:
                self._bytes -= pair.nbytes
                return pair
        if case.label is None:
            raise DataError("the case has no label file", case=case.name, fix="add one, or take the case out of the dataset")
        image = read_image(case.images, self.dataset.channels)
        label_map = read_label_map(case.label, self.dataset.labels)
        try:
            pair = Pair(image, label_map, check_pair(image, label_map) or "")
        except GeometryError as error:
            error.file = str(case.label)
            raise
        with self._lock:
            if keep and self._bytes + pair.nbytes <= KEEP_BYTES:
                self._kept[case.name] = pair
                self._bytes += pair.nbytes
        return pair
