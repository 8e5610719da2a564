"""Plans as text: every value once, its reason below it, and differences in both directions."""

from __future__ import annotations

from dataclasses import replace

from test_plan import FINE, PLAN

from autoseg.plan.text import WIDTH, differences_text, plan_differences, plan_text

ONE = replace(PLAN, configurations={"3d_fullres": FINE})


def test_the_text_has_every_value_with_its_reason_below_it() -> None:
    note = plan_text(PLAN)
    lines = note.splitlines()
    assert lines[0] == "Plan of Task01_X: segmentation, for cpu with 8 GB, plain family of networks"
    for heading in ("data", "3d_fullres: space", "3d_fullres: network", "3d_fullres: postprocess", "2d: training"):
        assert heading in lines
    place = next(i for i, line in enumerate(lines) if line.split() == ["batch_size", "2"])
    assert lines[place + 1].strip() == "2, the smallest that trains well"
    assert any(line.split() == ["strides", "1×1×1,", "1×2×2,", "2×2×2"] for line in lines)
    assert any(line.split() == ["spacing_mm", "1,", "0.5,", "0.5"] for line in lines)
    assert any(line.split() == ["labels", "1", "liver,", "4", "tumour"] for line in lines)
    assert any(line.split() == ["mirror_axes", "none"] for line in lines)
    assert any(line.split() == ["deep_supervision", "yes"] for line in lines)
    assert note.endswith("\n")


def test_long_reasons_are_wrapped() -> None:
    why = {"patch.batch_size": " ".join(["word"] * 80)}
    lines = plan_text(replace(ONE, configurations={"3d_fullres": replace(FINE, why=why)})).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.count("word") for line in lines) == 80


def test_no_difference() -> None:
    assert plan_differences(PLAN, PLAN) == {}
    assert differences_text({}) == "no difference\n"
    reworded = replace(ONE, configurations={"3d_fullres": replace(FINE, why={})})
    assert plan_differences(ONE, reworded) == {}


def test_differences_with_both_values_and_reasons() -> None:
    patch = replace(FINE.patch, batch_size=7)
    space = replace(FINE.space, spacing_mm=(1.0 + 1e-9, 0.5, 0.5))
    other = replace(FINE, patch=patch, space=space, why={"patch.batch_size": "memory holds 7"})
    found = plan_differences(ONE, replace(ONE, configurations={"3d_fullres": other}))
    assert list(found) == ["configurations.3d_fullres.space.spacing_mm", "configurations.3d_fullres.patch.batch_size"]
    assert differences_text(found).splitlines() == [
        "configurations.3d_fullres.space.spacing_mm",
        "  - 1.0, 0.5, 0.5",
        "  + 1.000000001, 0.5, 0.5",
        "configurations.3d_fullres.patch.batch_size",
        "  - 2",
        "      2, the smallest that trains well",
        "  + 7",
        "      memory holds 7",
    ]


def test_a_configuration_of_one_plan_only() -> None:
    there, gone = plan_differences(ONE, PLAN), plan_differences(PLAN, ONE)
    assert set(there) == set(gone)
    assert all(key.startswith("configurations.2d.") for key in there)
    key = "configurations.2d.patch.batch_size"
    assert [entry.value for entry in there[key]] == ["--", 12]
    assert [entry.value for entry in gone[key]] == [12, "--"]


def test_data_and_origin_are_compared() -> None:
    channel = replace(PLAN.data.channels[0], normalization="zscore")
    labels = replace(PLAN.data.labels, ignore=9)
    other = replace(
        PLAN, data=replace(PLAN.data, channels=(channel,), labels=labels), origin=replace(PLAN.origin, memory_gb=24.0)
    )
    found = plan_differences(PLAN, other)
    assert list(found) == ["data.channels[0].normalization", "origin.memory_gb", "data.labels.ignore"]


def test_common_values_are_written_once() -> None:
    both = replace(PLAN, configurations={"3d_fullres": FINE, "3d_cascade": replace(FINE, previous_stage="3d_fullres")})
    text = plan_text(both)
    assert text.count("patch_size") == text.count("16, 32, 32") == 1
    assert "\n3d_cascade: previous_stage\n  previous_stage  3d_fullres\n\nall: space\n" in text
    assert "To train first: 3d_fullres\n" in text
    alone = plan_text(replace(PLAN, configurations={"3d_fullres": FINE}))
    assert "all: " not in alone
    assert "slice_axis" not in alone
