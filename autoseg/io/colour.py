"""Grey, colour and transparency: how the channels of a natural image meet those that a dataset names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoseg.errors import DataError

_RGB_NAMES = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
RGB_8_BIT = "rgb_to_0_1"  # nnU-Net's name for a channel of 8-bit colour; also how it is normalised


def is_rgb(channels: Sequence[str]) -> bool:
    """Tell by their names if a dataset's channels are red, green and blue."""
    lower = [name.strip().lower() for name in channels]
    return len(lower) == 3 and (set(lower) == {RGB_8_BIT} or all(name in names for name, names in zip(lower, _RGB_NAMES)))


def names_in_words(channels: Sequence[str]) -> str:
    """List the names of channels, one that all share only once: 'T1, T2', or '3 × rgb_to_0_1'."""
    return f"{len(channels)} × {channels[0]}" if len(channels) > 1 and len(set(channels)) == 1 else ", ".join(channels)


def without_alpha(data: np.ndarray, path: Path) -> np.ndarray:
    """Drop the last channel of (C, Z, Y, X), the opacity, which must be the same everywhere.

    Raises:
        DataError: the opacity varies: then a pixel's colour depends on the background behind the image.
    """
    opacity = data[-1]
    if opacity.min() != opacity.max():
        raise DataError(
            "the image is partly transparent",
            file=path,
            found=f"opacity from {opacity.min()} to {opacity.max()}",
            allowed="the same everywhere",
            fix="flatten it onto the background that it belongs on, and save it without an alpha channel",
        )
    return data[:-1]


def is_grey(data: np.ndarray) -> bool:
    """Tell if all channels of (C, Z, Y, X) are equal."""
    return all(np.array_equal(channel, data[0]) for channel in data[1:])


def match_channels(data: np.ndarray, channels: Sequence[str], path: Path | str) -> np.ndarray:
    """Bring (C, Z, Y, X) to the named channels: repeat grey for red, green and blue, or reduce equal colours to grey.

    Any other combination is returned as it is.

    Raises:
        DataError: a coloured image for a single channel.
    """
    if len(data) == 1 and is_rgb(channels):
        return np.broadcast_to(data, (3, *data.shape[1:]))
    if len(data) == 3 and len(channels) == 1:
        if is_grey(data):
            return data[:1]
        raise DataError(
            f"a colour image where the dataset has one channel, '{channels[0]}'",
            file=path,
            found="red, green and blue that differ",
            allowed="grey",
            fix=f'convert it to grey, or name three channels "{RGB_8_BIT}" in dataset.json if all images have colour',
        )
    return data
