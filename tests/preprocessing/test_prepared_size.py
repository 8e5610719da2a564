"""Cases that a wrong spacing would enlarge beyond measure are refused before memory is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.tiny import Tiny

from autoseg.errors import GeometryError
from autoseg.imaging.geometry import Grid
from autoseg.imaging.image import Image
from autoseg.preprocessing import prepared_size
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.prepared_size import check_prepared_size, resampled_axes


@pytest.mark.parametrize("spacing", [(3000.0, 1500.0, 1500.0), (0.003, 2e6, 0.0015), (1e8, 1e8, 1e8)])
def test_a_case_whose_unit_is_wrong_is_refused(tiny: Tiny, spacing: tuple[float, float, float]) -> None:
    data = np.random.default_rng(0).random((1, 12, 16, 16), dtype=np.float32) + 1
    image = Image(data, Grid.from_spacing((12, 16, 16), spacing), tiny.dataset.channels)
    with pytest.raises(GeometryError, match=r"its voxels on the plan's grid.*; found: .* mm; allowed: about \(3, 2, 2\) mm; fix"):
        preprocess_case(image, None, tiny.plan.data, tiny.configuration.space)


def test_a_case_that_does_not_fit_into_the_free_memory_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    space, grid = tiny.configuration.space, Grid.from_spacing((20, 100, 100), (6, 4, 4))
    monkeypatch.setattr(prepared_size, "_CHECKED_BYTES", 0)
    monkeypatch.setattr(prepared_size, "free_ram_gb", lambda: 0.001)
    with pytest.raises(GeometryError, match=r"have 8 times its voxels on the plan's grid, 0\.0064 GB; found: \(6, 4, 4\) mm"):
        check_prepared_size(grid, (40, 200, 200), space, 1)
    check_prepared_size(grid, (20, 100, 100), space, 1)  # as large as the image itself
    monkeypatch.setattr(prepared_size, "free_ram_gb", lambda: None)
    check_prepared_size(grid, (40, 200, 200), space, 1)


def test_slices_do_not_count_across_their_plane(tiny: Tiny) -> None:
    flat = replace(tiny.configuration.space, spacing_mm=(2.0, 2.0), slice_axis=0)
    assert resampled_axes(Grid.from_spacing((4, 5, 6), (50, 1, 3)), flat) == pytest.approx((1, 3))
