"""Beginning with another model's weights: what is taken, at which rate it learns, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import Tiny, TinyRuns
from safetensors.torch import load_file

from autoseg.errors import UsageError
from autoseg.imaging.labels import LabelSet
from autoseg.imaging.landmarks import LandmarkSet
from autoseg.nets.build import build_network
from autoseg.nets.device import Device
from autoseg.nets.weights import AVERAGED, read_tensors
from autoseg.plan import LandmarkLossName, LandmarkPlan, Plan, ScnPlan
from autoseg.runs.budget import RunBudget
from autoseg.runs.options import Pretrained, TrainingOptions, pretrained_from_options
from autoseg.runs.record import load_run
from autoseg.system.files import write_text
from autoseg.training.checkpoint import load_state
from autoseg.training.optimizers import TRANSFER_RATE, make_optimizer
from autoseg.training.pretrained import take_weights
from autoseg.training.run import begin_or_resume
from autoseg.training.train import train

NAMES = ("left kidney", "right kidney", "left stone", "right stone")
ONE = TrainingOptions(RunBudget(epochs=1))


def wider(plan: Plan, n_channels: int = 1, labels: LabelSet | None = None) -> Plan:
    """The plan of a dataset with more channels or other structures."""
    return replace(plan, data=replace(plan.data, channels=plan.data.channels * n_channels, labels=labels or plan.data.labels))


def test_fitting_tensors_are_taken(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, caplog: pytest.LogCaptureFixture
) -> None:
    """Two channels instead of one: all but the first kernel. Two structures instead of four: all but the heads."""
    caplog.set_level("INFO")
    given = read_tensors(tiny_runs.runs[0] / "last.safetensors", AVERAGED)
    two = LabelSet(("a", "b"), (1, 2))
    four = LabelSet(("four", "other", "structures", "here"), (1, 2, 3, 4))
    for plan, missing in (
        (tiny.plan, set()),
        (wider(tiny.plan, 2), {"encoder.0.0.0.weight"}),
        (wider(tiny.plan, 1, two), {k for k in given if k.startswith("heads.")}),
        (wider(tiny.plan, 1, four), {k for k in given if k.startswith("heads.")}),
    ):
        network = build_network(plan, tiny.configuration, float32_cpu)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        transfer = take_weights(network, Pretrained(tiny_runs.runs[0], False), plan.data, None)
        assert set(before) - set(transfer.taken) == missing
        assert transfer.n_tensors == len(before)
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, before[name] if name in missing else given[name])
    n = len(given)
    where = tiny_runs.runs[0].resolve()
    assert caplog.messages[0] == f"pretrained: {n} of {n} tensors from {where}, which learn at a lower rate; learnt anew: nothing"
    assert caplog.messages[1].endswith("learnt anew: encoder.0.0.0.weight 4×1×1×3×3 for 4×2×1×3×3")
    assert "learnt anew: heads.0.weight 5×8×1×1×1 for 3×8×1×1×1, heads.0.bias 5 for 3" in caplog.messages[2]
    assert caplog.messages[2].endswith("and 1 more")
    assert "learnt anew: heads.0.weight, heads.0.bias, heads.1.weight and 1 more" in caplog.messages[3]


def test_landmark_head_is_taken_for_the_same_landmarks(
    tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path
) -> None:
    """A model of label maps gives all but the head for landmarks; one of landmarks gives its head if they are the same."""

    def joint(*names: str, loss: LandmarkLossName = "spatial_ce", scn: ScnPlan | None = None) -> Plan:
        c = replace(tiny.configuration, landmarks=LandmarkPlan((3.0, 3.0, 3.0), loss, scn))
        data = replace(tiny.plan.data, landmarks=LandmarkSet(names))
        return replace(tiny.plan, data=data, configurations={"3d_fullres": c})

    def taken(run: Path, plan: Plan) -> set[str]:
        network = build_network(plan, plan.configuration(None)[1], float32_cpu)
        return set(network.state_dict()) - set(
            take_weights(network, Pretrained(run, False), plan.data, plan.configuration(None)[1].landmarks).taken
        )

    head = {"point_head.local.weight", "point_head.local.bias"}
    assert taken(tiny_runs.runs[0], joint("a", "b")) == head
    run = begin_or_resume(tiny.job(tmp_path, plan=joint("a", "b")), TrainingOptions(RunBudget(epochs=1)), float32_cpu)
    run.save()
    assert taken(tmp_path, joint("a", "b")) == set()
    assert taken(tmp_path, joint("a", "c")) == head
    assert taken(tmp_path, tiny.plan) == set()
    assert taken(tmp_path, joint("a", "b", loss="mse")) == head  # as many numbers, which mean something else
    branch = ScnPlan("convolutions", (2, 2, 2), 3, 1, 4, "gate")
    body = {f"point_head.scn.body.{layer}.{part}" for layer in ("0.0", "1") for part in ("weight", "bias")}
    assert taken(tmp_path, joint("a", "b", scn=branch)) == body
    run = begin_or_resume(tiny.job(tmp_path / "branch", plan=joint("a", "b", scn=branch)), ONE, float32_cpu)
    run.save()
    assert taken(tmp_path / "branch", joint("a", "b", scn=branch)) == set()
    assert taken(tmp_path / "branch", joint("a", "b", scn=replace(branch, combine="logit_sum"))) == body


def test_learning_rate_of_taken_weights(tiny: Tiny, float32_cpu: Device) -> None:
    network = build_network(tiny.plan, tiny.configuration, float32_cpu)
    names = [name for name, _ in network.named_parameters()]
    taken = [name for name in names if not name.startswith("heads.")]
    groups = make_optimizer(network, tiny.configuration.training, taken).param_groups
    scale = {id(p): group["scale"] for group in groups for p in group["params"]}
    assert {name: scale[id(p)] for name, p in network.named_parameters()} == {
        n: TRANSFER_RATE if n in taken else 1 for n in names
    }


def test_pretrained_run_with_other_structures(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    """Frozen, all but the heads stay as they are, in the averaged weights as well, also over an interruption."""
    model = tmp_path / "model"
    write_text(model / "plan.json", (tiny_runs.runs[0] / "plan.json").read_text().replace("left stone", "left cyst"))
    (model / "last.safetensors").write_bytes((tiny_runs.runs[0] / "last.safetensors").read_bytes())
    given = read_tensors(model / "last.safetensors", AVERAGED)
    job = tiny.job(tmp_path / "frozen")
    record = train(job, replace(ONE, pretrained=Pretrained(model, True)), float32_cpu)
    assert record.pretrained == (f"{len(given) - 4} of {len(given)} tensors from {model.resolve()}, which stay as they are")
    assert load_run(job.run) == record
    (job.run / "run.json").unlink()
    train(job, TrainingOptions(RunBudget(epochs=2)), float32_cpu)
    assert load_state(job.run / "last.safetensors").step == 6
    after = load_file(job.run / "last.safetensors")
    for name, weight in given.items():
        learnt = name.startswith("heads.1.")
        if name.startswith("heads.0."):  # the coarsest one, to which the loss gives no weight
            continue
        assert torch.equal(after[f"network/{name}"], weight) != learnt
        assert torch.allclose(after[f"ema/{name}"], weight, rtol=1e-6, atol=0) != learnt
        assert any(key.startswith(f"optimizer/{name}/") for key in after) == learnt


def test_a_lower_rate_changes_weights_less(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    """AdamW's first steps have the size of the learning rate, whatever the gradient."""
    given = read_tensors(tiny_runs.runs[0] / "last.safetensors", AVERAGED)
    job = tiny.job(tmp_path)
    train(job, replace(ONE, pretrained=Pretrained(tiny_runs.runs[0], False)), float32_cpu)
    after = read_tensors(job.run / "last.safetensors", "network/")
    most = max(float((after[name] - weight).abs().max()) for name, weight in given.items())
    assert 0 < most <= 3 * 1.01 * TRANSFER_RATE * 0.01
    with open(job.run / "metrics.csv") as table:
        assert float(table.readlines()[1].split(",")[3]) > 0.001  # the curve has the rate of the run, not the lower one


def test_resuming_with_other_pretrained_weights(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    wish = Pretrained(tiny_runs.runs[0], False)
    new, begun = tiny.job(tmp_path / "new"), tiny.job(tmp_path / "begun")
    train(new, ONE, float32_cpu)
    train(begun, replace(ONE, pretrained=wish), float32_cpu)
    for job in (new, begun):
        (job.run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"has begun with other weights; .*found: new weights; fix: leave out --pretrained"):
        train(new, replace(ONE, pretrained=wish), float32_cpu)
    for other in (replace(wish, model=tiny_runs.runs[1]), replace(wish, freeze=True)):
        with pytest.raises(UsageError, match=r"has begun with other weights; .*found: \d+ of \d+ tensors from .*fold_0, which"):
            train(begun, replace(ONE, pretrained=other), float32_cpu)
    assert "fold_0" in str(train(begun, replace(ONE, pretrained=wish), float32_cpu).pretrained)


def test_what_the_options_ask_for(tiny_runs: TinyRuns, tmp_path: Path) -> None:
    assert pretrained_from_options(None, False) is None
    assert pretrained_from_options(tiny_runs.runs[0], True) == Pretrained(tiny_runs.runs[0], True)
    with pytest.raises(UsageError, match="--freeze keeps the weights of another model; fix: add --pretrained MODEL"):
        pretrained_from_options(None, True)
    with pytest.raises(UsageError, match=r"no weights to begin with; .*allowed: the folder of a run"):
        pretrained_from_options(tmp_path, False)


def test_unusable_pretrained_weights(tiny: Tiny, tiny_runs: TinyRuns, float32_cpu: Device, tmp_path: Path) -> None:
    network = build_network(tiny.plan, tiny.configuration, float32_cpu)
    with pytest.raises(UsageError, match=r"--freeze leaves nothing to learn; .*; fix: leave out --freeze"):
        take_weights(network, Pretrained(tiny_runs.runs[0], True), tiny.plan.data, None)
    with pytest.raises(UsageError, match=r"nothing of this model fits the network; .*; found: weight, bias"):
        take_weights(torch.nn.Conv3d(1, 1, 1), Pretrained(tiny_runs.runs[0], False), tiny.plan.data, None)
