"""Measurements that were changed by hand or damaged: refused in fingerprint.json, measured again in the cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import Tiny

from autoseg.errors import PlanError
from autoseg.fingerprint.dataset import load_fingerprint, take_fingerprint

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["intensities"].clear(), r"'intensities' does not fit the rest; file: .*found: 0; allowed: 1; fix: delete"),
        (
            lambda d: d["structures"].pop(),
            r"'structures' does not fit the rest; .*fix: delete the file, then autoseg fingerprint",
        ),
        (lambda d: d.update(cases=[]), r"'cases' does not fit the rest; .*found: 0"),
        (lambda d: d["channels"].append("MR"), r"'intensities' does not fit the rest"),
        (lambda d: d["ceilings"][0]["dice"].pop(), r"'ceilings\[0\]\.dice' does not fit the rest"),
        (lambda d: d.update(median_relative_size=0.0), r"'median_relative_size' cannot be used; .*found: 0\.0; allowed: above 0"),
        (
            lambda d: d["cases"][1].update(spacing=[1, 0, 1]),
            r"'cases\[1\]' has a measurement that cannot be; .*spacing: \(1\.0, 0",
        ),
        (lambda d: d["cases"][0].update(shape=[-1, 9, 9]), r"'cases\[0\]' has .*found: shape: \(-1, 9, 9\)"),
        (lambda d: d["cases"][0].update(shape_after_crop=[99, 9, 9]), r"'cases\[0\]' has .*found: shape_after_crop"),
        (lambda d: d["cases"][0]["voxels"].pop(), r"'cases\[0\]' has .*found: voxels"),
        (lambda d: d["cases"][0]["voxels"].__setitem__(0, -1), r"'cases\[0\]' has .*found: voxels of a structure"),
        (lambda d: d["cases"][0].update(spacing=[1, 1, 1e308]), r"'cases\[0\]' has .*found: spacing"),
        (
            lambda d: d["structures"][0].update(n_cases=-1),
            r"a measurement is negative; .*n_cases=-1.*allowed: 0 or more; fix: delete",
        ),
        (lambda d: d["intensities"][0].update(std=-1), r"a measurement is negative; .*found: intensities\[0\]\.std: -1\.0"),
        (lambda d: d["ceilings"][0].update(factor=-1), r"a measurement is negative; .*factor=-1"),
        (lambda d: d["cases"][0].update(states=[2]), r"'cases\[0\]' has .*found: states"),
        (
            lambda d: d["cases"][0].update(name="../a"),
            r"a case needs a name that can be a file's; .*found: '\.\./a' in cases\[0\]",
        ),
        (lambda d: d["labels"]["values"].reverse(), r"'labels': label values must be ascending integers; file: .*fix: delete"),
        (
            lambda d: d.update(schema_version="5"),
            r"'schema_version' has the wrong type; .*found: \"5\"; allowed: int; fix: delete",
        ),
    ],
)
def test_a_fingerprint_that_was_edited_is_refused(tiny: Tiny, tmp_path: Path, change: Change, message: str) -> None:
    document = json.loads((tiny.workspace.dataset_folder(tiny.dataset.name) / "fingerprint.json").read_text())
    change(document)
    path = tmp_path / "fingerprint.json"
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message):
        load_fingerprint(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.update(quantiles="AAAA"),
        lambda line: line.update(quantiles="!" * 2732),
        lambda line: line["fingerprint"]["intensities"].clear(),
        lambda line: line["fingerprint"]["voxels"].pop(),
        lambda line: line["fingerprint"].update(spacing=[1, 1, -1]),
        lambda line: line["fingerprint"]["tails"][0].update(tail_ratio=float("nan")),
        lambda line: line["fingerprint"].update(name=3),
        lambda line: line.clear(),
    ],
)
def test_a_damaged_line_of_the_cache_is_measured_again(
    tiny: Tiny, tmp_path: Path, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    work = tiny.workspace.dataset_folder(tiny.dataset.name)
    for name in ("fingerprint.json", "cases.jsonl"):
        shutil.copy(work / name, tmp_path / name)
    cache = tmp_path / "cases.jsonl"
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    change(lines[1])
    cache.write_text("".join(json.dumps(line) + "\n" for line in lines))
    take_fingerprint(tiny.dataset, tmp_path, workers=0)
    assert f"note: 1 line cannot be read and is measured again: damaged, or of another version; {cache}" in caplog.text
    assert cache.read_bytes() == (work / "cases.jsonl").read_bytes()
    assert (tmp_path / "fingerprint.json").read_bytes() == (work / "fingerprint.json").read_bytes()
