"""Makes the plans in this folder, or makes them again after the planner has changed.

    python plans/make.py               plan again from the fingerprints that lie here; git diff tells what has changed
    python plans/make.py FOLDER ...    take fingerprints first: of datasets, or of folders with nnU-Net's dataset_fingerprint.json

A fingerprint lies here without the names of cases and the digests of their files: facts only, one line a case.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from autoseg.dataset import open_dataset, read_description
from autoseg.fingerprint.dataset import Fingerprint, load_fingerprint
from autoseg.pipeline.fingerprint import fingerprint_dataset
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import Plan, save_plan
from autoseg.planner.make_plan import Budget, make_plan
from autoseg.planner.nnunet import FILE, from_nnunet
from autoseg.system.records import json_schema, to_json

HERE = Path(__file__).resolve().parent
FINGERPRINT, PLAN = ".fingerprint.json", ".plan.json"
GPU = Budget("cuda", 8)
CPU = Budget("cpu", 8, compute="bfloat16")  # two server cores with bf16 instructions: 120·10⁹ multiply-accumulates a second


def anonymous(fingerprint: Fingerprint) -> Fingerprint:
    """A fingerprint without what identifies its cases."""
    cases = tuple(replace(c, name=f"case_{i:04d}", digest="", intensities=(), remark="") for i, c in enumerate(fingerprint.cases))
    return replace(fingerprint, cases=cases)


def compact(fingerprint: Fingerprint) -> str:
    """JSON with a line for each case."""
    head = to_json(replace(fingerprint, cases=())).rstrip()
    cases = ",\n".join("    " + json.dumps(asdict(case)) for case in fingerprint.cases)
    return head.replace('"cases": []', f'"cases": [\n{cases}\n  ]') + "\n"


def take(folder: Path) -> Fingerprint:
    """Takes the fingerprint of a dataset, or reads the one that nnU-Net has left in the folder."""
    if (folder / FILE).is_file():
        document = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return anonymous(from_nnunet(folder.name, read_description(folder), document, folder / FILE))
    with tempfile.TemporaryDirectory() as work:
        workspace = Workspace(Path(work))
        dataset = open_dataset(folder, workspace.label_values(folder.name))
        return anonymous(fingerprint_dataset(dataset, workspace).fingerprint)


def budget(fingerprint: Fingerprint) -> Budget:
    """A GPU with 8 GB for nnU-Net's fingerprints, since its plans are for one; else a CPU, where the plans are tested."""
    return CPU if fingerprint.structures or fingerprint.landmarks.names else GPU


def plan(path: Path) -> Plan:
    """The plan for a stored fingerprint."""
    fingerprint = load_fingerprint(path)
    return make_plan(fingerprint, budget(fingerprint))


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        (HERE / f"{folder.name}{FINGERPRINT}").write_text(compact(take(folder.resolve())), encoding="utf-8")
    for path in sorted(HERE.glob(f"*{FINGERPRINT}")):
        name = path.name.removesuffix(FINGERPRINT)
        save_plan(plan(path), HERE / f"{name}{PLAN}")
        print(name)
    (HERE / "plan.schema.json").write_text(to_json(json_schema(Plan)), encoding="utf-8")


if __name__ == "__main__":
    main()
