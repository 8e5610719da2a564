from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import PlanError, UsageError
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import NO_LANDMARKS, LandmarkSet
from autoseg.plan import (
    SCHEMA_VERSION,
    ChannelPlan,
    Configuration,
    DataPlan,
    Footprint,
    InferencePlan,
    LandmarkPlan,
    NetworkPlan,
    Origin,
    PatchPlan,
    Plan,
    ScnPlan,
    SpacePlan,
    TrainingPlan,
    load_plan,
    parse_plan,
    save_plan,
)
from autoseg.system.records import to_json

FINE = Configuration(
    previous_stage=None,
    space=SpacePlan("LPS", (1.0, 0.5, 0.5), None, "nonzero", 3, 1),
    patch=PatchPlan((16, 32, 32), 2, 0.33),
    network=NetworkPlan(
        "plain_unet", (32, 64, 128), ((1, 1, 1), (1, 2, 2), (2, 2, 2)), ((1, 3, 3), (3, 3, 3), (3, 3, 3)), (2, 2, 2), (2, 2), True
    ),
    landmarks=None,
    training=TrainingPlan(1000, 250, None, "sgd", 0.01, 3e-5, "poly", 0.0, 0.99, "default", (0, 1, 2)),
    inference=InferencePlan(0.5, (0, 1, 2)),
    postprocess=("largest_foreground",),
    footprint=Footprint(6.5, 1.25, 3.0, 0.25),
    why={"patch.batch_size": "2, the smallest that trains well"},
)
FLAT = Configuration(
    previous_stage=None,
    space=SpacePlan("LPS", (0.5, 0.5), 0, "none", 3, 1),
    patch=PatchPlan((64, 32), 12, 0.33),
    network=NetworkPlan("residual_unet", (32, 64), ((1, 1), (2, 2)), ((3, 3), (3, 3)), (1, 3), (1,), False),
    landmarks=None,
    training=TrainingPlan(1, 1, 600.0, "adamw", 1e-3, 0.0, "cosine", 0.1, 0.0, "none", ()),
    inference=InferencePlan(0.0, ()),
    postprocess=(),
    footprint=None,
    why={},
)
PLAN = Plan(
    schema_version=SCHEMA_VERSION,
    name="Task01_X",
    task="segmentation",
    data=DataPlan((ChannelPlan("CT", "ct", 100.0, 50.0, -20.0, 400.0),), LabelSet(("liver", "tumour"), (1, 4)), NO_LANDMARKS),
    default_configuration="3d_fullres",
    configurations={"3d_fullres": FINE, "2d": FLAT},
    ladder=(),
    origin=Origin("0123abcd", 8.0, "cpu", "0.1.0", "plain", 120.0, "float32", "adamw_cosine"),
    why={"task": "the dataset has label maps"},
)


def edited(path: str, value: Any) -> str:
    """The plan's text after a hand edit of `configurations.3d_fullres.<path>`."""
    document = json.loads(to_json(PLAN))
    *parents, key = path.split(".")
    place = document["configurations"]["3d_fullres"]
    for parent in parents:
        place = place[parent]
    place[key] = value
    return json.dumps(document)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(PLAN, path)
    assert load_plan(path) == PLAN
    assert path.read_text(encoding="utf-8") == to_json(PLAN)
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "schema_version": 6,\n  "name": "Task01_X",')
    assert '      "patch": {\n        "patch_size": [16, 32, 32],' in text


def test_window_and_dimensions() -> None:
    assert (FINE.ndim, FINE.window) == (3, (16, 32, 32))
    assert (FLAT.ndim, FLAT.window, FLAT.divisors) == (2, (1, 64, 32), (1, 2, 2))
    sagittal = replace(FLAT, space=replace(FLAT.space, slice_axis=2))
    assert (sagittal.window, sagittal.divisors) == ((64, 32, 1), (2, 2, 1))
    assert sagittal.space.in_volume("ab", "-") == ("a", "b", "-")
    assert FINE.space.in_volume("abc", "-") == ("a", "b", "c")


def test_plans_without_a_loss_get_the_default_one() -> None:
    document = json.loads(to_json(PLAN))
    for configuration in document["configurations"].values():
        del configuration["training"]["loss"], configuration["training"]["batch_dice"]
    assert parse_plan(json.dumps(document), "plan.json") == PLAN


def test_choosing_a_configuration() -> None:
    assert PLAN.configuration(None) == ("3d_fullres", FINE)
    assert PLAN.configuration("2d") == ("2d", FLAT)
    assert (
        replace(PLAN, default_configuration="2d").configuration("auto")
        == replace(PLAN, default_configuration="2d").configuration(None)
        == ("2d", FLAT)
    )
    with pytest.raises(
        UsageError, match=r"no configuration '3d_fulres' - did you mean '3d_fullres'\?; allowed: 3d_fullres, 2d, auto"
    ):
        PLAN.configuration("3d_fulres")


def test_missing_plan_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no plan; file: .*plan\.json; fix: autoseg plan_and_preprocess -d DATASET"):
        load_plan(tmp_path / "plan.json")


def test_another_schema_version() -> None:
    with pytest.raises(PlanError, match=r"another schema version; file: plan\.json; found: 7; allowed: 1 to 6; fix: plan again"):
        parse_plan(to_json(replace(PLAN, schema_version=7)), "plan.json")


def as_version_4(plan: Plan) -> dict[str, Any]:
    """The document as it was when `default_configuration` was called `first`, and `previous_stage` `previous`."""
    document = json.loads(to_json(plan)) | {"schema_version": 4}
    document["first"] = document.pop("default_configuration")
    document["why"] = {{"default_configuration": "first"}.get(key, key): reason for key, reason in document["why"].items()}
    for c in document["configurations"].values():
        c["previous"] = c.pop("previous_stage")
        c["why"] = {{"previous_stage": "previous"}.get(key, key): reason for key, reason in c["why"].items()}
    return document


def test_plans_of_schema_4_are_upgraded() -> None:
    plan = replace(PLAN, why={"default_configuration": "the finest"})
    document = as_version_4(plan)
    assert "first" in document["why"]
    assert parse_plan(json.dumps(document), "plan.json") == plan


def test_plans_of_the_first_schema_are_upgraded() -> None:
    document = json.loads(to_json(PLAN)) | {"schema_version": 1}
    del (
        document["default_configuration"],
        document["origin"]["family"],
        document["origin"]["gmacs_per_s"],
        document["origin"]["compute"],
        document["origin"]["recipe"],
        document["data"]["landmarks"],
    )
    for configuration in document["configurations"].values():
        del configuration["previous_stage"], configuration["footprint"], configuration["landmarks"]
        del configuration["space"]["slice_axis"], configuration["training"]["time_s"]
    upgraded = parse_plan(json.dumps(document), "plan.json")
    assert upgraded.configurations["3d_fullres"] == replace(FINE, footprint=None)
    assert upgraded.configurations["2d"] == replace(FLAT, training=replace(FLAT.training, time_s=None))
    assert (upgraded.default_configuration, upgraded.origin) == (
        "3d_fullres",
        replace(PLAN.origin, gmacs_per_s=None, compute=None),
    )
    del document["configurations"]["2d"]["space"]
    with pytest.raises(PlanError, match=r"missing key 'configurations\.2d\.space'"):
        parse_plan(json.dumps(document), "plan.json")
    with pytest.raises(PlanError, match="missing key 'name'"):
        parse_plan('{"schema_version": 1}', "plan.json")


def test_the_default_configuration_must_exist() -> None:
    with pytest.raises(
        PlanError, match=r"'default_configuration' names no configuration - did you mean '3d_fullres'.*found: 3d_fulres"
    ):
        parse_plan(to_json(replace(PLAN, default_configuration="3d_fulres")), "plan.json")


CASCADED = replace(PLAN, configurations={**PLAN.configurations, "3d_cascade": replace(FINE, previous_stage="2d")})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../..", "/tmp/a", "a\\b", "a\nb", "a\x01b", "a" * 256])
def test_configuration_names_must_be_folder_names(name: str) -> None:
    document = json.loads(to_json(PLAN))
    document["configurations"][name] = document["configurations"]["3d_fullres"]
    document["default_configuration"] = name
    message = r"^a configuration needs a name that can be a file's; file: plan\.json; found: .* under 'configurations'; allowed"
    with pytest.raises(PlanError, match=message):
        parse_plan(json.dumps(document), "plan.json")


def test_a_cascade_has_one_more_input_channel_a_structure() -> None:
    assert parse_plan(to_json(CASCADED), "plan.json") == CASCADED
    assert (CASCADED.input_channels("3d_fullres"), CASCADED.input_channels("3d_cascade")) == (1, 3)
    assert (CASCADED.prepared_as("3d_cascade"), CASCADED.prepared_as("2d")) == ("3d_fullres", "2d")


@pytest.mark.parametrize(("name", "previous"), [("3d_cascade", "3d_lowres"), ("3d_cascade", "3d_cascade"), ("2d", "3d_cascade")])
def test_a_previous_stage_has_none_itself(name: str, previous: str) -> None:
    changed = replace(CASCADED.configurations[name], previous_stage=previous)
    odd = replace(CASCADED, configurations={**CASCADED.configurations, name: changed})
    with pytest.raises(
        PlanError, match=rf"'configurations\.{name}\.previous_stage' must name another.*found: {previous}; allowed: null, "
    ):
        parse_plan(to_json(odd), "plan.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "'document' has the wrong type"), ("{}", "missing key 'schema_version'")],
)
def test_text_that_is_no_plan(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_plan(text, "plan.json")


def test_misspelt_key() -> None:
    with pytest.raises(
        PlanError, match=r"unknown key 'configurations\.3d_fullres\.patch\.batchsize' - did you mean 'batch_size'"
    ):
        parse_plan(edited("patch.batchsize", 2), "plan.json")


def test_a_plan_without_configuration() -> None:
    with pytest.raises(PlanError, match=r"a plan needs a configuration; file: plan\.json"):
        parse_plan(to_json(replace(PLAN, configurations={})), "plan.json")


def test_unseen_structures_must_exist() -> None:
    seen = replace(PLAN, data=replace(PLAN.data, unseen=PLAN.data.labels.names[:1]))
    assert parse_plan(to_json(seen), "plan.json") == seen
    odd = replace(PLAN, data=replace(PLAN.data, unseen=("livr",)))
    with pytest.raises(PlanError, match=r"'data\.unseen' names an unknown structure.*found: livr; allowed: "):
        parse_plan(to_json(odd), "plan.json")


def test_unknown_normalization() -> None:
    odd = replace(PLAN, data=replace(PLAN.data, channels=(replace(PLAN.data.channels[0], normalization="zscor"),)))
    with pytest.raises(
        PlanError, match=r"'data\.channels\[0\]\.normalization' is unknown - did you mean 'zscore'\?.*found: zscor"
    ):
        parse_plan(to_json(odd), "plan.json")


def test_sampling() -> None:
    document = json.loads(edited("patch.sampling", "structures"))
    assert parse_plan(json.dumps(document), "plan.json").configurations["3d_fullres"].patch.sampling == "structures"
    del document["configurations"]["3d_fullres"]["patch"]["sampling"]  # plans of before there was a choice
    assert parse_plan(json.dumps(document), "plan.json") == PLAN
    with pytest.raises(
        PlanError, match=r"patch\.sampling' is unknown - did you mean 'cases'\?.*found: case; allowed: cases, str"
    ):
        parse_plan(edited("patch.sampling", "case"), "plan.json")


def test_labels_are_checked() -> None:
    document = json.loads(to_json(PLAN))
    document["data"]["labels"]["values"] = [4, 1]
    with pytest.raises(PlanError, match=r"'data\.labels': label values must be ascending.*file: plan\.json; found: \(4, 1\)"):
        parse_plan(json.dumps(document), "plan.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("patch.patch_size", [16], r"patch\.patch_size' cannot be used.*found: \(16,\); allowed: two or three numbers"),
        ("patch.patch_size", [], r"patch\.patch_size' cannot be used"),
        ("patch.patch_size", [16, 30, 32], r"patch\.patch_size\[1\]' cannot be used.*found: 30; allowed: a multiple of 4"),
        ("patch.patch_size", [0, 32, 32], r"patch\.patch_size\[0\]' cannot be used.*found: 0; allowed: a multiple of 2"),
        (
            "training.learning_rate",
            math.inf,
            r"training\.learning_rate' cannot be used.*found: Infinity; allowed: a finite",
        ),
        ("training.weight_decay", math.inf, r"training\.weight_decay' cannot be used.*found: Infinity; allowed: a finite number"),
        ("space.spacing_mm", [1.0, math.nan, 1.0], r"space\.spacing_mm\[1\]' cannot be used.*found: NaN; allowed: a finite"),
        ("patch.batch_size", 0, r"patch\.batch_size' cannot be used.*found: 0; allowed: 1 or more"),
        ("patch.foreground_fraction", 1.5, r"patch\.foreground_fraction' cannot be used.*found: 1\.5; allowed: 0…1"),
        ("space.spacing_mm", [1.0, 1.0], r"space\.spacing_mm' cannot be used.*allowed: 3 numbers, as patch_size"),
        ("space.spacing_mm", [1.0, 0.0, 1.0], r"space\.spacing_mm' cannot be used.*allowed: 1e-09…1e\+09 mm"),
        ("space.orientation", "RAS", r"space\.orientation' is unknown.*found: RAS; allowed: LPS"),
        ("space.crop", "body", r"space\.crop' is unknown.*found: body; allowed: nonzero, none"),
        ("space.slice_axis", 0, r"space\.slice_axis' cannot be used.*found: 0; allowed: null"),
        ("space.image_order", 2, r"space\.image_order' cannot be used.*found: 2; allowed: 0, 1, 3"),
        ("space.label_order", 3, r"space\.label_order' cannot be used.*found: 3; allowed: 0, 1"),
        ("network.kind", "plain_unt", r"network\.kind' is unknown - did you mean 'plain_unet'\?"),
        ("network.features", [32], r"network\.features' cannot be used.*two or more positive numbers"),
        ("network.features", [32, 0, 1], r"network\.features' cannot be used"),
        ("network.strides", [[1, 1, 1], [2, 2, 2]], r"network\.strides' cannot be used.*allowed: 3×3"),
        ("network.strides", [[1, 1, 1], [2, 2], [2, 2, 2]], r"network\.strides' cannot be used"),
        ("network.strides", [[1, 1, 1], [0, 2, 2], [2, 2, 2]], r"network\.strides' cannot be used"),
        ("network.strides", [[2, 1, 1], [1, 2, 2], [2, 2, 2]], r"network\.strides\[0\]' cannot be used.*allowed: all 1"),
        ("network.kernel_sizes", [[3, 3, 3]] * 2, r"network\.kernel_sizes' cannot be used.*allowed: 3×3"),
        ("network.kernel_sizes", [[3, 3, 3]] * 2 + [[2, 3, 3]], r"network\.kernel_sizes' cannot be used.*odd numbers"),
        ("network.encoder_blocks", [2, 0, 2], r"network\.encoder_blocks' cannot be used.*allowed: 3 positive numbers"),
        ("network.encoder_blocks", [2, 2], r"network\.encoder_blocks' cannot be used.*allowed: 3 positive numbers"),
        ("network.decoder_blocks", [2, 2, 2], r"network\.decoder_blocks' cannot be used.*allowed: 2 positive numbers"),
        ("training.epochs", 0, r"training\.epochs' cannot be used.*found: 0 × 250; allowed: 1 or more"),
        ("training.time_s", 5, r"training\.time_s' cannot be used.*found: 5\.0; allowed: 20 or more, or null"),
        ("training.steps_per_epoch", 0, r"training\.epochs' cannot be used.*found: 1000 × 0"),
        ("training.learning_rate", 0, r"training\.learning_rate' cannot be used.*allowed: above 0"),
        ("training.weight_decay", -1, r"training\.weight_decay' cannot be used.*allowed: 0 or more"),
        ("training.warmup_fraction", 1, r"training\.warmup_fraction' cannot be used"),
        ("training.ema_decay", 1, r"training\.ema_decay' cannot be used"),
        (
            "training.optimizer",
            "addamw",
            r"training\.optimizer' is unknown - did you mean 'adamw'\?; .*allowed: adamw, adam, sgd",
        ),
        (
            "training.schedule",
            "cosin",
            r"training\.schedule' is unknown - did you mean 'cosine'.*found: cosin; allowed: cosine, poly",
        ),
        ("training.loss", "dice_cee", r"training\.loss' is unknown - did you mean 'dice_ce'.*found: dice_cee; allowed: dice_ce"),
        ("training.augmentation", "much", r"training\.augmentation' is unknown.*allowed: default, none"),
        ("training.mirror_axes", [3], r"training\.mirror_axes' cannot be used.*allowed: 0 \(z\), 1 \(y\), 2 \(x\)"),
        ("inference.mirror_axes", [-1], r"inference\.mirror_axes' cannot be used"),
        ("training.mirror_axes", [2, 2], r"training\.mirror_axes' cannot be used.*allowed: each axis once"),
        ("inference.overlap", 1.0, r"inference\.overlap' cannot be used.*found: 1\.0; allowed: 0…0\.95"),
        ("postprocess", ["largest"], r"postprocess\[0\]' is unknown.*found: largest; allowed: largest_foreground"),
    ],
)
def test_invalid_values_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=r"'configurations\.3d_fullres\." + message):
        parse_plan(edited(path, value), "plan.json")


def test_slices_are_not_mirrored_along_the_slice_axis() -> None:
    mirrored = replace(FLAT, inference=replace(FLAT.inference, mirror_axes=(1, 0)))
    odd = replace(PLAN, configurations={**PLAN.configurations, "2d": mirrored})
    with pytest.raises(PlanError, match=r"'configurations\.2d\.inference\.mirror_axes' cannot be used.*allowed: not 0, along"):
        parse_plan(to_json(odd), "plan.json")


def test_a_2d_plan_needs_a_slice_axis() -> None:
    for axis in (3, None):
        odd = replace(
            PLAN, configurations={**PLAN.configurations, "2d": replace(FLAT, space=replace(FLAT.space, slice_axis=axis))}
        )
        with pytest.raises(PlanError, match=r"'configurations\.2d\.space\.slice_axis' cannot be used.*allowed: 0 \(z\), 1 \(y\)"):
            parse_plan(to_json(odd), "plan.json")


POINTS = replace(
    PLAN,
    data=replace(PLAN.data, landmarks=LandmarkSet(("nose", "chin"))),
    configurations={
        "3d_fullres": replace(FINE, landmarks=LandmarkPlan((1.5, 0.75, 0.75), "spatial_ce", None)),
        "2d": replace(
            FLAT,
            landmarks=LandmarkPlan((0.75, 0.75), "mse", ScnPlan("convolutions", (8, 8), 5, 3, 64, "product")),
        ),
    },
)


def test_landmarks_round_trip() -> None:
    assert parse_plan(to_json(POINTS), "plan.json") == POINTS


def _landmark_edits() -> list[tuple[str, LandmarkPlan | None]]:
    flat = POINTS.configurations["2d"].landmarks
    assert flat is not None
    assert flat.scn is not None
    return [
        ("landmarks", None),
        ("landmarks.sigma_mm", replace(flat, sigma_mm=(1.0,))),
        ("landmarks.sigma_mm", replace(flat, sigma_mm=(1.0, 0.0))),
        ("landmarks.scn.factor", replace(flat, scn=replace(flat.scn, factor=(4,)))),
        ("landmarks.scn.kernel", replace(flat, scn=replace(flat.scn, kernel=4))),
        ("landmarks.scn.layers", replace(flat, scn=replace(flat.scn, layers=0))),
        ("landmarks.scn.features", replace(flat, scn=replace(flat.scn, features=0))),
        ("landmarks.scn.combine", replace(flat, loss="spatial_ce")),
        ("landmarks.scn.combine", replace(flat, scn=replace(flat.scn, combine="gate"))),
    ]


@pytest.mark.parametrize(("key", "edited"), _landmark_edits())
def test_invalid_landmark_values_are_refused(key: str, edited: LandmarkPlan | None) -> None:
    wrong = replace(
        POINTS, configurations={**POINTS.configurations, "2d": replace(POINTS.configurations["2d"], landmarks=edited)}
    )
    with pytest.raises(PlanError, match=rf"'configurations\.2d\.{re.escape(key)}' cannot be used"):
        parse_plan(to_json(wrong), "plan.json")


def test_a_dataset_without_landmarks_plans_none() -> None:
    with pytest.raises(PlanError, match=r"'configurations\.3d_fullres\.landmarks' cannot be used.*null, since"):
        parse_plan(to_json(replace(POINTS, data=PLAN.data)), "plan.json")


def test_only_landmarks_may_have_maps_coarser_than_the_patch() -> None:
    coarse = replace(FINE.network, strides=((2, 2, 2), (1, 2, 2), (2, 2, 2)))
    fine = replace(POINTS.configurations["3d_fullres"], network=coarse)
    plan = replace(POINTS, default_configuration="3d_fullres", configurations={"3d_fullres": fine})
    with pytest.raises(PlanError, match=r"network\.strides\[0\]' cannot be used"):
        parse_plan(to_json(plan), "plan.json")
    alone = replace(plan, data=replace(plan.data, labels=LabelSet((), ())))
    assert parse_plan(to_json(alone), "plan.json") == alone


@pytest.mark.parametrize(("loss", "combine"), [("spatial_ce", "gate"), ("mse", "product")])
def test_branches_of_schema_3_are_upgraded(loss: str, combine: str) -> None:
    """It said what it was fed, and how its maps were combined whatever they mean; one-sided landmarks were not known."""
    document = as_version_4(POINTS) | {"schema_version": 3}
    del document["data"]["landmarks"]["one_sided"]
    landmarks = document["configurations"]["2d"]["landmarks"]
    landmarks["loss"] = loss
    landmarks["scn"] |= {"input": "maps", "combine": "logit_sum"}
    plan = parse_plan(json.dumps(document), "plan.json")
    found = plan.configurations["2d"].landmarks
    assert found is not None
    assert found.scn is not None
    assert (found.loss, found.scn.combine) == (loss, combine)
    assert plan.data == POINTS.data
    assert plan.configurations["3d_fullres"] == POINTS.configurations["3d_fullres"]


def test_dsnt_has_no_branch() -> None:
    flat = POINTS.configurations["2d"].landmarks
    assert flat is not None
    wrong = replace(POINTS.configurations["2d"], landmarks=replace(flat, loss="dsnt"))
    with pytest.raises(PlanError, match=r"landmarks\.scn' cannot be used.*null with dsnt"):
        parse_plan(to_json(replace(POINTS, configurations={**POINTS.configurations, "2d": wrong})), "plan.json")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"schema_version": ' + "[" * 100_000])
def test_plan_that_is_nested_too_deeply(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content, encoding="utf-8")
    with pytest.raises(PlanError, match=r"nested too deeply; file: .*plan\.json; found: maximum recursion depth"):
        load_plan(tmp_path / "plan.json")


def test_plan_that_is_no_utf_8(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(to_json(PLAN).replace(PLAN.name, "Köln").encode("latin-1"))
    with pytest.raises(PlanError, match=r"not UTF-8 text; file: .*plan\.json"):
        load_plan(tmp_path / "plan.json")
