"""Beginning with the weights of another model: what fits is taken, the rest is learnt anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from autoseg.errors import UsageError
from autoseg.nets.weights import AVERAGED, read_tensors
from autoseg.plan import DataPlan, LandmarkPlan, load_plan
from autoseg.system.progress import log
from autoseg.training.checkpoint import Transfer


@dataclass(frozen=True)
class Pretrained:
    """The folder of a run, and whether what is taken from it stays as it is.

    Raises:
        UsageError: no weights there.
    """

    model: Path
    freeze: bool

    def __post_init__(self) -> None:
        if not self.file.is_file():
            raise UsageError(
                "no weights to begin with", file=self.model, allowed="the folder of a run, which holds last.safetensors"
            )

    @property
    def file(self) -> Path:
        return self.model / "last.safetensors"


def asked_weights(model: Path | None, freeze: bool) -> Pretrained | None:
    """What the options --pretrained and --freeze ask for.

    Raises:
        UsageError: no weights there, or --freeze alone.
    """
    if model is None and freeze:
        raise UsageError("--freeze keeps the weights of another model", fix="add --pretrained MODEL")
    return Pretrained(model, freeze) if model else None


def take_weights(network: nn.Module, wish: Pretrained, data: DataPlan, landmarks: LandmarkPlan | None) -> Transfer:
    """Copies every averaged weight whose name and shape fit, and says in a line what was and what was not.

    The output heads are not taken from a model that has learnt other structures or landmarks, even if it has learnt as many, nor
    that of landmarks if its maps mean something else.

    Args:
        data, landmarks: what the network is to learn, and how.

    Raises:
        UsageError: nothing fits; or everything does, and all of it is to stay as it is.
        DataError: damaged weights.
    """
    given, own = read_tensors(wish.file, AVERAGED), network.state_dict()
    plan = load_plan(wish.model / "plan.json")
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
        raise UsageError("nothing of this model fits the network", file=wish.model, found=", ".join(left[:3]))
    if wish.freeze and not left:
        raise UsageError("--freeze leaves nothing to learn", file=wish.model, found="every weight fits", fix="leave out --freeze")
    network.load_state_dict(taken, strict=False)
    transfer = Transfer(str(wish.model.resolve()), wish.freeze, tuple(taken), len(own))
    missing = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    log.info("pretrained: %s; learnt anew: %s", transfer, missing or "nothing")
    return transfer


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
