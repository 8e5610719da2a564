"""Optimizers by name: settings, and the first step by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from autoseg.plan import Optimizer
from autoseg.planner.make_plan import Budget
from autoseg.planner.training import plan_training
from autoseg.training.optimizers import make_optimizer

PLAN = replace(plan_training((), Budget("cpu", 8), 1.0, covered=1.0, slices=False)[0], learning_rate=0.1, weight_decay=0.5)


def weights_after_a_step(optimizer: str) -> tuple[float, float]:
    """Of a kernel of weight 2 and a bias of 2, whose gradients are 1."""
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, 2.0)
    assert network.bias is not None
    nn.init.constant_(network.bias, 2.0)
    by = make_optimizer(network, replace(PLAN, optimizer=optimizer))
    network(torch.ones(1, 1, 1, 1)).sum().backward()
    by.step()
    return network.weight.item(), network.bias.item()


@pytest.mark.parametrize(
    ("optimizer", "kernel", "bias"),
    [
        ("sgd", 2 - 0.1 * 1.99 * (1 + 0.5 * 2), 2 - 0.1 * 1.99 * (1 + 0.5 * 2)),  # Nesterov: gradient + 0.99 momentum
        ("adamw", 2 * (1 - 0.1 * 0.5) - 0.1, 1.9),  # decay apart from the step, which has the size of the rate
        ("adam", 1.9, 1.9),  # decay is part of the gradient, whose size does not matter
        ("rmsprop", 2 - 0.1 * 10, 2 - 0.1 * 10),  # the mean square has seen a hundredth of it
    ],
)
def test_one_step_by_hand(optimizer: str, kernel: float, bias: float) -> None:
    assert weights_after_a_step(optimizer) == pytest.approx((kernel, bias), abs=1e-5)


@pytest.mark.parametrize("recipe", ["adamw_constant", "adamw_cosine"])
def test_what_a_plan_calls_a_default_of_adamw_is_one(recipe: str) -> None:
    """Every reason that names it, with the factor that it names."""
    plan, why = plan_training((), Budget("cpu", 8, recipe=recipe), 1.0, covered=1.0, slices=False)
    defaults = torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults
    said = {key.removeprefix("training."): reason for key, reason in why.items() if re.search("default (of|for) AdamW", reason)}
    assert said.keys() == {"learning_rate", "weight_decay"}
    times = {"three times the default": 3, "30 times the default": 30}
    factor = {key: next((n for words, n in times.items() if words in reason), 1) for key, reason in said.items()}
    assert plan.learning_rate == pytest.approx(factor["learning_rate"] * defaults["lr"])
    assert plan.weight_decay == pytest.approx(factor["weight_decay"] * defaults["weight_decay"])


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_decay_spares_norms_and_biases_unless_it_is_nnunets(optimizer: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4))
    groups = make_optimizer(network, replace(PLAN, optimizer=optimizer)).param_groups
    decayed = sum(p.numel() for group in groups for p in group["params"] if group["weight_decay"])
    assert decayed == (4 * 9 + 4 + 4 + 4 if optimizer == "sgd" else 4 * 9)
    assert sum(p.numel() for group in groups for p in group["params"]) == 4 * 9 + 4 + 4 + 4
