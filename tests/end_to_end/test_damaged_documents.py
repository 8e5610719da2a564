"""Documents of every kind, damaged in every way: an error of ours or success, within seconds, and never anything else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from helpers.mutations import damaged_json, damaged_text
from helpers.nnunet_fingerprint import FOUND
from helpers.tiny import Tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.dataset import open_dataset, read_description
from autoseg.dataset.predicted import PREDICTED, Maker, Origin, makers, origins, recorded
from autoseg.errors import AutosegError, printable
from autoseg.fingerprint.dataset import load_fingerprint, take_fingerprint
from autoseg.io import read_points
from autoseg.pipeline.ownership import check_owner, remember_owner
from autoseg.pipeline.workspace import Workspace
from autoseg.plan import load_plan
from autoseg.planner.nnunet import from_nnunet
from autoseg.postprocessing.component_rules import Rule
from autoseg.preprocessing.store import StoredCase, remove_case, stored_key
from autoseg.runs.abandoned import Abandoned, load_abandoned, save_abandoned
from autoseg.runs.record import RunRecord, common_rules, common_thresholds, load_run, record_scores, record_table
from autoseg.runs.training_cases import load_training_cases, trained_on
from autoseg.splits.folds import extend_folds, leak_notes, load_folds
from autoseg.splits.nnunet import read_nnunet_splits
from autoseg.splits.patients import find_patients
from autoseg.system.documents import read_json
from autoseg.system.records import to_json
from autoseg.system.workers import Failure, read_failures, write_failures

LIMIT_S = 5.0  # of processor time, for a document; a sound one takes some milliseconds
RECORD = RunRecord(
    *("X", "2d", "0", True, 3.5, 10, "2 cases not trained on", 0.5, {"a": 0.5, "b": None}, (Rule("largest_per_structure", "a"),)),
    landmark_mre={"nose": 1.5, "chin": None},
    thresholds={"nose": 0.5, "chin": None},
)
MARKUPS = {
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [{"label": "nose", "position": [1.0, 2.0, 3.0], "positionStatus": "defined", "description": ""}],
        }
    ]
}
POINTS = {"space": "LPS", "unit": "mm", "case": "a", "landmarks": {"nose": {"position": [1, 2, 3], "state": "present"}}}
FCSV = "# CoordinateSystem = LPS\n# columns = id,x,y,z,label,desc\n1,1,2,3,nose,\n2,1,2,3,chin,\n"
TABLE = 'case,landmark,x,y,z,space,state,confidence\nphantom_000,nose,1,2,3,LPS,present,0.5\nphantom_001,"a, b",,,,,absent,\n'


@dataclass(frozen=True)
class Kind:
    """A kind of document: its file, a valid text, and what is done with it."""

    file: Path
    text: str
    use: Callable[[], object]
    is_json: bool = True

    def damaged(self, random: Random) -> bytes:
        return damaged_json(self.text, random) if self.is_json else damaged_text(self.text, random)


def user_documents(tiny: Tiny, folder: Path) -> dict[str, Kind]:
    """Documents that users write."""
    data, names = folder / "Dataset001_X", [case.name for case in tiny.dataset.cases]
    data.mkdir()
    for name in ("imagesTr", "labelsTr"):
        os.symlink(tiny.data / name, data / name)
    meta = (tiny.data / "dataset.json").read_text()
    pairs = [{"image": f"imagesTr/{n}_0000.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names]
    table = "case,image,label,patient\n" + "".join(f"{n},imagesTr/{n}_0000.nii.gz,labelsTr/{n}.nii.gz,{n[:-1]}\n" for n in names)
    pointed = folder / "Dataset002_Y"
    (pointed / "landmarksTr").mkdir(parents=True)
    os.symlink(tiny.data / "imagesTr", pointed / "imagesTr")
    about = {"channel_names": {"0": "MR"}, "labels": {}, "unlisted_landmarks": "unlabelled"}
    about |= {"landmarks": ["nose", "eye_L", "eye_R"], "symmetric_pairs": [["eye_L", "eye_R"]]}
    (pointed / "dataset.json").write_text(json.dumps(about))
    points = [json.dumps({**POINTS, "case": name}) for name in names]
    (pointed / "landmarksTr" / f"{names[1]}.json").write_text(points[1])
    (pointed / "landmarksTr" / f"{names[0]}.json").write_text(points[0])
    splits = [{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]
    nnunet = json.dumps(FOUND)

    def from_folder(root: Path) -> Callable[[], object]:
        return lambda: repr(open_dataset(root))

    def alone(root: Path, file: str) -> Callable[[], object]:
        """What is left of the dataset's own documents with this one."""

        def use() -> object:
            for other in root.iterdir():
                if other.is_file() and other.name != file:
                    other.unlink()
            return repr(open_dataset(root))

        return use

    return {
        "dataset.json": Kind(data / "dataset.json", meta, alone(data, "dataset.json")),
        "Decathlon's": Kind(
            data / "dataset.json",
            json.dumps({"modality": {"0": "MR"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": pairs}),
            alone(data, "dataset.json"),
        ),
        "landmarks of it": Kind(pointed / "dataset.json", json.dumps(about), from_folder(pointed)),
        "cases.csv": Kind(data / "cases.csv", table, alone(data, "cases.csv"), False),
        "patients of cases.csv": Kind(data / "cases.csv", table, lambda: find_patients(data, names, {}), False),
        "patients.csv": Kind(
            folder / "patients.csv",
            "case,patient\nphantom_000,x\nphantom_001,x\n",
            lambda: find_patients(folder, names, {}),
            False,
        ),
        "landmark .json": Kind(pointed / "landmarksTr" / f"{names[0]}.json", points[0], from_folder(pointed)),
        "another .json": Kind(folder / "a.json", json.dumps(POINTS), lambda: read_points(folder / "a.json")),
        ".mrk.json": Kind(folder / "a.mrk.json", json.dumps(MARKUPS), lambda: read_points(folder / "a.mrk.json")),
        ".fcsv": Kind(folder / "a.fcsv", FCSV, lambda: read_points(folder / "a.fcsv"), False),
        "landmarks.csv": Kind(folder / "landmarks.csv", TABLE, lambda: read_points(folder / "landmarks.csv"), False),
        "splits_final.json": Kind(
            folder / "splits_final.json",
            json.dumps(splits),
            lambda: read_nnunet_splits(folder / "splits_final.json", names, "hash"),
        ),
        "nnU-Net's fingerprint": Kind(
            folder / "nnunet.json",
            nnunet,
            lambda: from_nnunet("X", read_description(tiny.data), read_json(folder / "nnunet.json"), folder / "nnunet.json").hash,
        ),
    }


def own_documents(tiny: Tiny, folder: Path) -> dict[str, Kind]:
    """Documents that autoseg writes."""
    names = [case.name for case in tiny.dataset.cases]
    work, prepared = tiny.workspace.dataset_folder(tiny.dataset.name), tiny.workspace.prepared(tiny.dataset.name, "3d_fullres")
    workspace = Workspace(folder)
    workspace.remember_dataset(tiny.data)
    workspace.remember_model(folder)
    workspace.remember_speed("cpu", 10.0)
    remember_owner("X", tiny.data, workspace)
    save_abandoned(folder, Abandoned(60.0, "cpu", 0.5, "slow", "3d_x2"))
    (folder / "training_cases.json").write_text('{"phantom_000": "1234", "phantom_001": ""}')
    write_failures(folder / "failed.csv", [Failure("a", "read", 'a "reason", or two'), Failure("b", "prepare 2d", "")], ())
    maker = Maker("digest", "X", ("fold_0",), True)
    for name in ("a.nii", "b.nii"):
        with recorded(folder, Origin(name, name[0], maker, "1-2")) as path:
            path.write_text("x")
    for path in prepared.glob("phantom_000.*"):
        shutil.copy(path, folder / path.name)
    bare = folder / "Dataset003_Bare"
    bare.mkdir()
    for name in ("imagesTr", "labelsTr"):
        os.symlink(tiny.data / name, bare / name)
    open_dataset(bare, folder / "label_values.json")
    for name in ("fingerprint.json", "cases.jsonl"):
        shutil.copy(work / name, folder / name)

    def use_folds() -> object:
        folds = load_folds(folder / "splits.json")
        parts = [(folds.training_cases(f), folds.validation_cases(f), folds.remark(f)) for f in folds.names]
        return parts, leak_notes(extend_folds(folds, [*names, "new"], "hash", {"new": names[0]}))

    def use_run() -> object:
        record = load_run(folder)
        return record_table(record), record_scores(record), common_rules([record]), common_thresholds([record], ("nose", "chin"))

    def use_stored() -> object:
        if stored_key(folder, "phantom_000") is None:
            return remove_case(folder, "a")
        case = StoredCase.open(folder, "phantom_000")
        return case.placement, case.points, case.inside, case.landmarks_present, case.voxel_counts, case.shape

    def read(file: str) -> str:
        return (folder / file).read_text()

    return {
        "plan.json": Kind(folder / "plan.json", (work / "plan.json").read_text(), lambda: str(load_plan(folder / "plan.json"))),
        "fingerprint.json": Kind(
            folder / "fingerprint.json", read("fingerprint.json"), lambda: load_fingerprint(folder / "fingerprint.json").hash
        ),
        "splits.json": Kind(folder / "splits.json", (work / "splits.json").read_text(), use_folds),
        "run.json": Kind(folder / "run.json", to_json(RECORD), use_run),
        "last.json": Kind(folder / "last.json", read("last.json"), lambda: (workspace.last(), workspace.has_model())),
        "speeds.json": Kind(folder / "speeds.json", read("speeds.json"), lambda: workspace.remember_speed("cuda", 1.0)),
        "source.json": Kind(
            folder / "datasets/X/source.json", read("datasets/X/source.json"), lambda: check_owner("X", tiny.data, workspace)
        ),
        "abandoned.json": Kind(folder / "abandoned.json", read("abandoned.json"), lambda: load_abandoned(folder)),
        "training_cases.json": Kind(
            folder / "training_cases.json",
            read("training_cases.json"),
            lambda: (load_training_cases([folder]), trained_on([folder], tiny.dataset.cases)),
        ),
        "label_values.json": Kind(
            folder / "label_values.json", read("label_values.json"), lambda: open_dataset(bare, folder / "label_values.json")
        ),
        "case.json": Kind(folder / "phantom_000.json", read("phantom_000.json"), use_stored),
        "predicted.jsonl": Kind(folder / PREDICTED, read(PREDICTED), lambda: (origins(folder), makers(folder)), False),
        "line of predicted.jsonl": Kind(folder / PREDICTED, read(PREDICTED).splitlines()[0], lambda: makers(folder)),
        "cases.jsonl": Kind(
            folder / "cases.jsonl", read("cases.jsonl"), lambda: take_fingerprint(tiny.dataset, folder, workers=0), False
        ),
        "line of cases.jsonl": Kind(
            folder / "cases.jsonl", read("cases.jsonl").splitlines()[2], lambda: take_fingerprint(tiny.dataset, folder, workers=0)
        ),
        "failed.csv": Kind(
            folder / "failed.csv",
            read("failed.csv"),
            lambda: (
                read_failures(folder / "failed.csv"),
                write_failures(folder / "failed.csv", [Failure("a", "x", "")], ("x",)),
            ),
            False,
        ),
    }


USERS = (
    *("dataset.json", "Decathlon's", "landmarks of it", "cases.csv", "patients of cases.csv", "patients.csv", "landmark .json"),
    *("another .json", ".mrk.json", ".fcsv", "landmarks.csv", "splits_final.json", "nnU-Net's fingerprint"),
)
OWN = (
    *("plan.json", "fingerprint.json", "splits.json", "run.json", "last.json", "speeds.json", "source.json", "abandoned.json"),
    *("training_cases.json", "label_values.json", "case.json", "predicted.jsonl", "line of predicted.jsonl", "cases.jsonl"),
    *("line of cases.jsonl", "failed.csv"),
)
SLOW = ("label_values.json", "cases.jsonl", "line of cases.jsonl")  # damaged, they let all cases be read again


@pytest.fixture(scope="module")
def kinds(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    users, own = tmp_path_factory.mktemp("users"), tmp_path_factory.mktemp("own")
    return user_documents(tiny, users) | own_documents(tiny, own)


@pytest.mark.parametrize("name", [*USERS, *OWN])
def test_a_damaged_document_is_an_error_of_ours_or_none(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    kind.file.write_text(kind.text)
    kind.use()  # sound, it is read

    @settings(max_examples=40 if name in SLOW else 200)
    @given(st.randoms(use_true_random=False))
    def check(random: Random) -> None:
        kind.file.write_bytes(kind.damaged(random))
        start = time.process_time()
        try:
            kind.use()
        except AutosegError as error:
            message = str(error)
            assert len(message) < 5000
            assert printable(message) == message
        assert time.process_time() - start < LIMIT_S

    check()
    kind.file.write_text(kind.text)
    kind.use()


def test_all_kinds_are_tried(kinds: dict[str, Kind]) -> None:
    assert set(kinds) == {*USERS, *OWN}
