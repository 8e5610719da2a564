"""Sizes beyond any computer, statistics that nothing can be scaled by, and other slips in a plan."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import PlanError
from autoseg.plan import load_plan, parse_plan

SHIPPED = Path(__file__).parents[2] / "plans" / "Task04_Hippocampus.plan.json"


def edited(path: str, value: Any) -> str:
    """Text of a shipped plan with another value."""
    document = json.loads(SHIPPED.read_text(encoding="utf-8"))
    *parents, key = path.split("/")
    place = document
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    place[int(key) if isinstance(place, list) else key] = value
    return json.dumps(document)


FINE = "configurations/3d_fullres"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{FINE}/network/features", [32, 64, 128, 10**9], r"network\.features' cannot be used; .*; allowed: up to 8192 a stage"),
        (
            f"{FINE}/network/features",
            [8192] * 4,
            r"network\.features' cannot be used; .*allowed: 1e\+09 weights, not 2\.\d*e\+10",
        ),
        (
            f"{FINE}/network/features",
            [32] * 10**5,
            r"network\.features' cannot be used; .*found: 100000 stages; allowed: up to 16",
        ),
        (
            f"{FINE}/network/encoder_blocks",
            [2, 2, 2, 10**6],
            r"network\.encoder_blocks' cannot be used; .*allowed: up to 100 a stage",
        ),
        (
            f"{FINE}/network/decoder_blocks",
            [2, 2, 10**6],
            r"network\.decoder_blocks' cannot be used; .*allowed: up to 100 a stage",
        ),
        (
            f"{FINE}/network/kernel_sizes/1",
            [3, 3, 10001],
            r"network\.kernel_sizes' cannot be used; .*allowed: up to 63 along an axis",
        ),
        (f"{FINE}/network/strides/1", [2, 2, 10**6], r"network\.strides' cannot be used; .*allowed: up to 64 along an axis"),
        (
            f"{FINE}/patch/patch_size",
            [80000, 80000, 80000],
            r"patch\.patch_size' cannot be used; .*allowed: 2147483648 voxels in all",
        ),
        (f"{FINE}/patch/batch_size", 10**9, r"patch\.patch_size' cannot be used; .*found: batch 1000000000 ×"),
        (f"{FINE}/patch/batch_size", 2**63, r"patch\.batch_size' cannot be used; .*allowed: a number of 64 bits; fix: undo"),
        (f"{FINE}/training/epochs", 10**12, r"training\.epochs' cannot be used; .*allowed: 1e\+09 steps in all"),
        (f"{FINE}/training/time_s", 1e300, r"training\.time_s' cannot be used; .*allowed: up to 1e\+08 s"),
        (f"{FINE}/space/spacing_mm", [1.0, 1.0, 1e-300], r"space\.spacing_mm' cannot be used; .*allowed: 1e-09…1e\+09 mm"),
        (f"{FINE}/inference/overlap", 0.9999999, r"inference\.overlap' cannot be used; .*found: 0\.9999999; allowed: 0…0\.95"),
        ("data/channels", [], r"^'data\.channels' cannot be used; .*allowed: a channel or more"),
        ("data/labels", {"names": [], "values": []}, r"the plan has neither structures nor landmarks; .*found: 'data\.labels'"),
        ("schema_version", 4.0, r"another schema version; .*found: 4\.0; allowed: 1 to"),
        ("schema_version", [6], r"another schema version; .*found: \[6\]; allowed: 1 to"),
        ("schema_version", True, r"another schema version; .*found: true; allowed: 1 to"),
        (
            "why",
            {"a": 1},
            r"^'why\.a' has the wrong type; .*found: 1; allowed: str; fix: undo the last edit, or delete the file and plan",
        ),
    ],
)
def test_sizes_beyond_any_computer_are_named(path: str, value: Any, message: str) -> None:
    start = time.process_time()
    with pytest.raises(PlanError, match=message):
        parse_plan(edited(path, value), "plan.json")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": 0.0}, r"^'data\.channels\[0\]\.std' cannot be used; .*found: 0\.0; allowed: above 0"),
        ({"std": -1.0}, r"^'data\.channels\[0\]\.std' cannot be used"),
        (
            {"percentile_00_5": 9.0, "percentile_99_5": 9.0},
            r"percentile_00_5' cannot be used; .*found: 9\.0; allowed: below .*9\.0",
        ),
        ({"percentile_00_5": 9.0, "percentile_99_5": 1.0}, r"percentile_00_5' cannot be used"),
        ({"mean": float("nan")}, r"^'data\.channels\[0\]\.mean' cannot be used; .*found: NaN; allowed: a finite number"),
    ],
)
def test_statistics_that_nothing_can_be_scaled_by(changes: dict[str, float], message: str) -> None:
    channel = json.loads(SHIPPED.read_text(encoding="utf-8"))["data"]["channels"][0]
    with pytest.raises(PlanError, match=message):
        parse_plan(edited("data/channels/0", {**channel, "normalization": "ct", **changes}), "plan.json")


def test_a_constant_channel_that_is_scaled_by_each_case_is_none_of_them() -> None:
    channel = json.loads(SHIPPED.read_text(encoding="utf-8"))["data"]["channels"][0]
    assert channel["normalization"] == "zscore"
    assert parse_plan(edited("data/channels/0", {**channel, "std": 0.0}), "plan.json").data.channels[0].std == 0


def test_too_many_configurations() -> None:
    document = json.loads(SHIPPED.read_text(encoding="utf-8"))
    document["configurations"] |= {f"c{i}": document["configurations"]["3d_fullres"] for i in range(100)}
    with pytest.raises(PlanError, match=r"^the plan has too many configurations; .*found: 102 configurations; allowed: 100"):
        parse_plan(json.dumps(document), "plan.json")


def test_branches_beyond_any_computer_are_named() -> None:
    document = json.loads((SHIPPED.parent / "ceph.plan.json").read_text(encoding="utf-8"))
    branch = {"form": "convolutions", "factor": [4, 4], "kernel": 9, "layers": 3, "features": 64, "combine": "gate"}
    landmarks = document["configurations"]["2d"]["landmarks"]
    for key, value in (("features", 10**6), ("layers", 10**6), ("kernel", 1001)):
        landmarks["scn"] = {**branch, key: value}
        with pytest.raises(PlanError, match=rf"landmarks\.scn\.{key}' cannot be used; .*found: {value}; allowed: up to"):
            parse_plan(json.dumps(document), "plan.json")
    landmarks["scn"] = {**branch, "kernel": 63, "features": 8192}
    with pytest.raises(PlanError, match=r"landmarks\.scn\.features' cannot be used; .*allowed: 1e\+09 weights, not 8e\+11"):
        parse_plan(json.dumps(document), "plan.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_does_no_harm(tmp_path: Path, encoding: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    (tmp_path / "plan.json").write_text(text, encoding=encoding)
    assert load_plan(tmp_path / "plan.json") == parse_plan(text, "plan.json")
    (tmp_path / "plan.json").write_text(text.replace("Task04", "Köln"), encoding="utf-16")
    with pytest.raises(PlanError, match=r"the document is not UTF-8 text; .*found: UTF-16; fix: save it as UTF-8; undo"):
        load_plan(tmp_path / "plan.json")
