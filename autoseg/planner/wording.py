"""Numbers as reasons write them."""

from __future__ import annotations

from collections.abc import Sequence


def numbers(values: Sequence[float]) -> str:
    """'(1, 0.768, 0.768)': four significant digits, no trailing zeros; whole numbers in full."""
    return "(" + ", ".join(number(v) for v in values) + ")"


def number(value: float) -> str:
    """'0.768', '128': four significant digits, no trailing zeros; whole numbers in full."""
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"


def size(values: Sequence[int]) -> str:
    """'128×128×128'."""
    return "×".join(map(str, values))


def billions(value: float) -> str:
    """'0.453·10⁹': three significant digits."""
    return f"{value / 1e9:.3g}·10⁹" if value < 1e12 else f"{value / 1e9:.0f}·10⁹"


def seconds(value: float) -> str:
    """'90 s', '10 min', '2.5 h'."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def percent(share: float) -> str:
    """'23 %', '0.42 %': two significant digits, never a power of ten."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"
