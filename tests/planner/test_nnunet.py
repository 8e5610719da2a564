"""nnU-Net's fingerprint read as ours: every value in its place, and nothing accepted that nnU-Net would not write."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from helpers.nnunet_fingerprint import FOUND

from autoseg.dataset import Description
from autoseg.errors import DataError
from autoseg.imaging.labels import LabelSet
from autoseg.planner.nnunet import from_nnunet

CT_AND_PET = Description(("CT", "PET"), LabelSet(("liver", "tumour"), (1, 2)))


def test_each_value_in_its_place() -> None:
    fingerprint = from_nnunet("Task03_Liver", CT_AND_PET, FOUND, "dataset_fingerprint.json")
    assert (fingerprint.dataset, fingerprint.channels, fingerprint.labels) == ("Task03_Liver", ("CT", "PET"), CT_AND_PET.labels)
    assert fingerprint.median_relative_size == 0.9
    assert [(c.name, c.spacing, c.shape_after_crop) for c in fingerprint.cases] == [
        ("case_0000", (5.0, 0.7, 0.7), (75, 512, 512)),
        ("case_0001", (1.0, 0.8, 0.8), (123, 500, 512)),
    ]
    ct, pet = fingerprint.intensities
    assert (ct.mean, ct.std, ct.median, ct.min, ct.max) == (99.5, 37.0, 101.0, -983.0, 5420.0)
    assert (ct.percentile_00_5, ct.percentile_99_5, pet.mean) == (-15.0, 197.0, 2.0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("spacings",), None, r"'spacings' must list three numbers a case; file: f\.json; allowed: \[\[z, y, x\], \.\.\.\]"),
        (("spacings",), [[1, 1]], "'spacings' must list three numbers a case"),
        (
            ("spacings",),
            [[1, 0, 1]] * 2,
            "'spacings' must hold positive numbers; file: f.json; found: 0; allowed: a number above 0",
        ),
        (("spacings",), [[1, 10**400, 1]] * 2, "'spacings' must hold positive numbers; .*allowed: a number above 0, 1e-09 to 1e"),
        (("spacings",), [[1, 1e308, 1]] * 2, "'spacings' must hold positive numbers; .*found: 1e\\+308"),
        (("spacings",), [[1, "1", 1]] * 2, "'spacings' must hold positive numbers"),
        (("shapes_after_crop",), [[-3, 5, 5]] * 2, "'shapes_after_crop' must hold positive numbers"),
        (("shapes_after_crop",), [[3, 5, 5]], "found: 2 spacings, 1 shapes_after_crop"),
        (
            ("median_relative_size_after_cropping",),
            float("nan"),
            "after_cropping' must hold positive numbers",
        ),
        (("foreground_intensity_properties_per_channel",), {}, "the fingerprint has no '0'"),
        (("foreground_intensity_properties_per_channel", "1"), [], "the fingerprint has no 'mean'"),
        (("foreground_intensity_properties_per_channel", "1", "mean"), float("nan"), "must be finite numbers.*found: mean: NaN"),
        (("foreground_intensity_properties_per_channel", "1", "max"), 10**400, "must be finite numbers.*found: max: 1000"),
        (
            ("foreground_intensity_properties_per_channel", "1", "std"),
            "a",
            'the intensities must be finite numbers.*found: std: "a"',
        ),
    ],
)
def test_malformed_values_are_refused(path: tuple[str, ...], value: Any, message: str) -> None:
    document = copy.deepcopy(FOUND)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises(DataError, match=message):
        from_nnunet("Task03_Liver", CT_AND_PET, document, "f.json")


@pytest.mark.parametrize("key", list(FOUND))
def test_missing_keys_are_named(key: str) -> None:
    document = {k: v for k, v in FOUND.items() if k != key}
    with pytest.raises(DataError, match=f"the fingerprint has no '{key}'; file: f.json; fix: copy the file"):
        from_nnunet("Task03_Liver", CT_AND_PET, document, "f.json")
    with pytest.raises(DataError, match="the fingerprint has no 'spacings'"):
        from_nnunet("Task03_Liver", CT_AND_PET, [], "f.json")  # type: ignore[arg-type]
