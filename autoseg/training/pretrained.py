"""Transfer of weights from another model: tensors that fit are taken, the others are learnt anew."""

from __future__ import annotations

from torch import Tensor, nn

from autoseg.errors import UsageError
from autoseg.nets.weights import AVERAGED, read_tensors
from autoseg.plan import DataPlan, LandmarkPlan, load_plan
from autoseg.runs.options import Pretrained
from autoseg.system.progress import log
from autoseg.training.state import Transfer


def take_weights(network: nn.Module, pretrained: Pretrained, data: DataPlan, landmarks: LandmarkPlan | None) -> Transfer:
    """Copy every averaged weight whose name and shape fit, and log which were taken and which were not.

    The output heads are not taken from a model that has learnt other structures or landmarks, even if it has learnt as many, nor
    that of landmarks if its maps mean something else.

    Args:
        data, landmarks: of the plan that the network will be trained by.

    Raises:
        UsageError: nothing fits; or everything does, and all of it is to stay as it is.
        DataError: damaged weights.
    """
    tensors, own = read_tensors(pretrained.file, AVERAGED), network.state_dict()
    plan = load_plan(pretrained.model / "plan.json")
    learnt, heads = plan.data, [c.landmarks for c in plan.configurations.values() if c.landmarks]
    same = {
        "heads.": learnt.labels.names == data.labels.names,
        "point_head.": learnt.landmarks.names == data.landmarks.names
        and (landmarks is None or landmarks.loss in [head.loss for head in heads]),
        "point_head.scn.": landmarks is None or landmarks.scn in [head.scn for head in heads],
    }
    others = tuple(prefix for prefix, alike in same.items() if not alike)
    taken = {
        name: tensors[name]
        for name, weight in own.items()
        if name in tensors and tensors[name].shape == weight.shape and not name.startswith(others)
    }
    untaken = [
        name
        if name not in tensors or tensors[name].shape == own[name].shape
        else f"{name} {_shape(tensors[name])} for {_shape(own[name])}"
        for name in own
        if name not in taken
    ]
    if not taken:
        raise UsageError("nothing of this model fits the network", file=pretrained.model, found=", ".join(untaken[:3]))
    if pretrained.freeze and not untaken:
        raise UsageError(
            "--freeze leaves nothing to learn", file=pretrained.model, found="every weight fits", fix="leave out --freeze"
        )
    network.load_state_dict(taken, strict=False)
    transfer = Transfer(str(pretrained.model.resolve()), pretrained.freeze, tuple(taken), len(own))
    missing = ", ".join(untaken[:3]) + (f" and {len(untaken) - 3} more" if len(untaken) > 3 else "")
    log.info("pretrained: %s; learnt anew: %s", transfer, missing or "nothing")
    return transfer


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
