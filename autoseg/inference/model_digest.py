"""The identity of a model: a digest of everything that its predictions follow from but the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from autoseg.inference.model import Model
from autoseg.postprocessing.component_rules import Rule
from autoseg.system.records import to_json


def model_digest(model: Model, rules: Sequence[Rule]) -> str:
    """Hex digest of weights, plan, thresholds, shape prior and rules, and of those of a cascade's previous stage.

    Copies of a run have the same one, and a run that is trained further gets another.
    """
    digest = hashlib.sha256()
    for text in (to_json(model.plan.data), to_json(model.configuration.decisions), repr(model.thresholds), to_json(rules)):
        digest.update(text.encode())
    for network in model.networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if model.shape_prior is not None:
        digest.update(np.ascontiguousarray(model.shape_prior.cases).tobytes())
    if model.previous_stage is not None:
        digest.update(model_digest(model.previous_stage, ()).encode())
    return digest.hexdigest()
