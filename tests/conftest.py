"""Shared fixtures: the folder of real data, and small datasets made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a file or folder below $AUTOSEG_DATA (else ../shared/data beside the checkout); skips where absent."""
    root = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} in {root}; set AUTOSEG_DATA")
        return path

    return find
