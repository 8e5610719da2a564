"""Optimizers by name."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.plan import TrainingPlan


def make_optimizer(network: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """The plan's optimizer over all weights of a network.

    Weight decay acts on convolution kernels only: on norms and biases it has nothing to regularise.
    """
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)
