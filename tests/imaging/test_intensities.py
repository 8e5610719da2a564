"""Levels of intensities, and images in which there are none."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.errors import DataError
from autoseg.imaging.intensities import check_not_blank


@pytest.mark.parametrize("values", [[0.0], [5.0], [0.0, 7.0]])
def test_a_blank_image_is_refused(values: list[float]) -> None:
    image = np.stack([np.full((3, 4, 5), value, dtype=np.float32) for value in values])
    with pytest.raises(DataError, match=f"the image is blank; file: a; found: {', '.join(f'{v:g}' for v in values)} everywhere"):
        check_not_blank(image, "a")
    image[-1, 2, 3, 4] += 1
    check_not_blank(image)
