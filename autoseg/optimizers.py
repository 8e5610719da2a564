"""Optimizers by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autoseg.plan import TrainingPlan


def make_optimizer(network: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """The plan's optimizer over all weights of a network.

    `sgd` is nnU-Net's: momentum 0.99, Nesterov, weight decay on everything. With the others, which adapt the step of each
    weight, decay acts on convolution kernels only: on norms and biases it has nothing to regularise.
    """
    if plan.optimizer == "sgd":
        everything = network.parameters()
        return torch.optim.SGD(everything, lr=plan.learning_rate, momentum=0.99, nesterov=True, weight_decay=plan.weight_decay)
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": kernels, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if plan.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=plan.learning_rate)
    kind = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=plan.learning_rate, fused=True)
