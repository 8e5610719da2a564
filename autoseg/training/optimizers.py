"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from autoseg.plan import TrainingPlan

TRANSFER_RATE = 0.1  # of the learning rate, for weights from another model, which only need to adapt


def make_optimizer(network: nn.Module, plan: TrainingPlan, taken: Collection[str] = ()) -> torch.optim.Optimizer:
    """Make the plan's optimizer over all weights of a network that are not frozen.

    `sgd` is nnU-Net's: momentum 0.99, Nesterov, weight decay on everything. With the others, which adapt the step of each
    weight, decay acts on convolution kernels only: on norms and biases it has nothing to regularise.

    Args:
        taken: names of weights that come from another model.

    Returns:
        An optimizer whose groups have, beside torch's entries, a `scale`: the factor on the learning rate of the run.
    """
    split: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            decay = plan.weight_decay if weight.ndim > 1 or plan.optimizer == "sgd" else 0.0
            split.setdefault((TRANSFER_RATE if name in taken else 1.0, decay), []).append(weight)
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": decay, "scale": scale} for (scale, decay), weights in split.items()
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.99, nesterov=True, fused=True)
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=plan.learning_rate)
    kind = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=plan.learning_rate, fused=True)
