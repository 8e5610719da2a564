"""Beginning with the weights of another model: what fits is taken, the rest is learnt anew."""

from __future__ import annotations

from torch import Tensor, nn

from autoseg.errors import UsageError
from autoseg.nets.weights import AVERAGED, read_tensors
from autoseg.plan import DataPlan, LandmarkPlan, load_plan
from autoseg.runs.options import Pretrained
from autoseg.system.progress import log
from autoseg.training.state import Transfer


def take_weights(network: nn.Module, pretrained: Pretrained, data: DataPlan, landmarks: LandmarkPlan | None) -> Transfer:
    """Copies every averaged weight whose name and shape fit, and says in a line what was and what was not.

    The output heads are not taken from a model that has learnt other structures or landmarks, even if it has learnt as many, nor
    that of landmarks if its maps mean something else.

    Args:
        data, landmarks: what the network is to learn, and how.

    Raises:
        UsageError: nothing fits; or everything does, and all of it is to stay as it is.
        DataError: damaged weights.
    """
    given, own = read_tensors(pretrained.file, AVERAGED), network.state_dict()
    plan = load_plan(pretrained.model / "plan.json")
    learnt, before = plan.data, [c.landmarks for c in plan.configurations.values() if c.landmarks]
    same = {
        "heads.": learnt.labels.names == data.labels.names,
        "point_head.": learnt.landmarks.names == data.landmarks.names
        and (landmarks is None or landmarks.loss in [b.loss for b in before]),
        "point_head.scn.": landmarks is None or landmarks.scn in [b.scn for b in before],
    }
    others = tuple(prefix for prefix, alike in same.items() if not alike)
    taken = {
        name: given[name]
        for name, weight in own.items()
        if name in given and given[name].shape == weight.shape and not name.startswith(others)
    }
    left = [
        name
        if name not in given or given[name].shape == own[name].shape
        else f"{name} {_shape(given[name])} for {_shape(own[name])}"
        for name in own
        if name not in taken
    ]
    if not taken:
        raise UsageError("nothing of this model fits the network", file=pretrained.model, found=", ".join(left[:3]))
    if pretrained.freeze and not left:
        raise UsageError(
            "--freeze leaves nothing to learn", file=pretrained.model, found="every weight fits", fix="leave out --freeze"
        )
    network.load_state_dict(taken, strict=False)
    transfer = Transfer(str(pretrained.model.resolve()), pretrained.freeze, tuple(taken), len(own))
    missing = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    log.info("pretrained: %s; learnt anew: %s", transfer, missing or "nothing")
    return transfer


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
