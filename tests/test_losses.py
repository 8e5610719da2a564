"""Losses: by hand, against a plain one-hot version with its gradients, ignored voxels, decoder levels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoseg.losses import SMOOTH, deep_supervision, dice_ce, nearest_resize

IGNORE = 255


def naive(logits: Tensor, target: Tensor) -> Tensor:
    """The definition, with a one-hot label map."""
    known = target != IGNORE
    one_hot = F.one_hot(torch.where(known, target, 0), logits.shape[1]).movedim(-1, 1).float() * known.unsqueeze(1)
    p = logits.softmax(1)
    cross_entropy = -(one_hot * p.log()).sum() / known.sum()
    dices = []
    for i in range(len(logits)):
        if known[i].any():
            seen = p[i] * known[i]
            overlap, size = (seen * one_hot[i]).flatten(1).sum(1), (seen + one_hot[i]).flatten(1).sum(1)
            dices.append(((2 * overlap + SMOOTH) / (size + SMOOTH))[1:])
    return cross_entropy - torch.stack(dices).mean()


def test_two_voxels_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 1, 2)  # both classes are equally likely everywhere
    loss = dice_ce(logits, torch.tensor([[[[0, 1]]]]), IGNORE)
    assert float(loss) == pytest.approx(math.log(2) - (2 * 0.5 + SMOOTH) / (0.5 + 0.5 + 1 + SMOOTH))


def test_perfect_prediction_gives_minus_one() -> None:
    target = torch.tensor([[[0, 1], [2, 1]]])
    logits = 100.0 * F.one_hot(target, 3).movedim(-1, 1)
    assert float(dice_ce(logits, target, IGNORE)) == pytest.approx(-1, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(2, 5),
    st.sampled_from([(4, 5), (2, 3, 4)]),
    st.sampled_from([0.0, 0.3]),
)
def test_equals_the_one_hot_definition_with_its_gradient(
    seed: int, batch: int, classes: int, size: tuple[int, ...], ignored: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator)
    target = torch.randint(classes, (batch, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORE
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = dice_ce(ours, target, IGNORE), naive(theirs, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_ignored_voxels_have_no_influence_and_no_gradient() -> None:
    target = torch.tensor([[0, 1, IGNORE, 2, IGNORE]])
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = dice_ce(logits, target, IGNORE)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[..., [2, 4]].abs().max() == 0
    assert logits.grad[..., [0, 1, 3]].abs().min() > 0
    changed = logits.detach().clone()
    changed[..., [2, 4]] = 50 * torch.randn(1, 3, 2)
    assert float(dice_ce(changed, target, IGNORE)) == float(loss.detach())
    left_out = dice_ce(logits[..., [0, 1, 3]], target[:, [0, 1, 3]], IGNORE)
    assert left_out.item() == pytest.approx(loss.item(), rel=1e-6)


def test_a_batch_without_annotation_gives_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = dice_ce(logits, torch.full((2, 4, 4), IGNORE), IGNORE)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_a_sample_without_annotation_does_not_dilute_the_others() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    target[1] = IGNORE
    assert float(dice_ce(logits, target, IGNORE)) == pytest.approx(float(dice_ce(logits[:1], target[:1], IGNORE)), rel=1e-6)


def test_half_precision_logits_give_a_float32_loss() -> None:
    logits, target = torch.randn(1, 2, 6), torch.randint(2, (1, 6))
    loss = dice_ce(logits.bfloat16(), target, IGNORE)
    assert loss.dtype == torch.float32
    assert float(loss) == float(dice_ce(logits.bfloat16().float(), target, IGNORE))


def test_levels_weigh_half_of_the_finer_one_and_the_coarsest_nothing() -> None:
    target = torch.randint(3, (2, 8, 8))
    outputs = [torch.randn(2, 3, n, n, requires_grad=True) for n in (8, 4, 2, 1)]
    loss = deep_supervision(outputs, target, IGNORE)
    by_level = [dice_ce(o, nearest_resize(target, o.shape[2:]), IGNORE) for o in outputs]
    expected = (by_level[0] + by_level[1] / 2 + by_level[2] / 4) / 1.75
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert outputs[3].grad is None
    assert all(o.grad is not None for o in outputs[:3])


def test_a_single_level_is_not_dropped() -> None:
    logits, target = torch.randn(1, 2, 4, 4), torch.randint(2, (1, 4, 4))
    assert float(deep_supervision([logits], target, IGNORE)) == float(dice_ce(logits, target, IGNORE))


def test_nearest_resize_by_hand() -> None:
    line = torch.tensor([[10, 11, 12, 13, 14, 15]])
    assert nearest_resize(line, (3,)).tolist() == [[11, 13, 15]]
    assert nearest_resize(line, (2,)).tolist() == [[11, 14]]
    assert nearest_resize(line[:, :2], (4,)).tolist() == [[10, 10, 11, 11]]
    assert nearest_resize(line, (6,)) is line


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=3), st.integers(0, 2**31))
def test_nearest_resize_gains_no_values(sizes: list[tuple[int, int]], seed: int) -> None:
    target = torch.randint(300, (2, *(a for a, _ in sizes)), generator=torch.Generator().manual_seed(seed))
    resized = nearest_resize(target, [b for _, b in sizes])
    assert resized.shape == (2, *(b for _, b in sizes))
    for before, after in zip(target, resized):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())
