"""Losses: by hand, against a plain one-hot version with its gradients, ignored voxels, decoder levels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoseg.training.losses import (
    LOSSES,
    SMOOTH,
    balanced_ce,
    ce,
    deep_supervision,
    dice,
    dice_ce,
    dice_focal,
    focal,
    nearest_resize,
    topk_ce,
)
from autoseg.training.losses.dice_ce import sums_by_adding, sums_by_comparing

IGNORE = 255


def naive(logits: Tensor, target: Tensor) -> Tensor:
    """The definition, with a one-hot label map."""
    is_known = target != IGNORE
    one_hot = F.one_hot(torch.where(is_known, target, 0), logits.shape[1]).movedim(-1, 1).float() * is_known.unsqueeze(1)
    p = logits.softmax(1)
    cross_entropy = -(one_hot * p.log()).sum() / is_known.sum()
    dices = []
    for i in range(len(logits)):
        if is_known[i].any():
            counted = p[i] * is_known[i]
            overlap, size = (counted * one_hot[i]).flatten(1).sum(1), (counted + one_hot[i]).flatten(1).sum(1)
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


FOUR = torch.tensor([[[0.9, 0.6, 0.2, 0.5], [0.1, 0.4, 0.8, 0.5]]]).log()  # log p of two classes in four voxels
TRUTH = torch.tensor([[0, 0, 1, IGNORE]])  # whose p are 0.9, 0.6, 0.8, and the last does not count
CE = -(math.log(0.9) + math.log(0.6) + math.log(0.8)) / 3
FOCAL = -(0.1**2 * math.log(0.9) + 0.4**2 * math.log(0.6) + 0.2**2 * math.log(0.8)) / 3
DICE = (2 * 0.8 + SMOOTH) / (1 + 0.1 + 0.4 + 0.8 + SMOOTH)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ce", CE),
        ("focal", FOCAL),
        ("dice", -DICE),
        ("dice_ce", CE - DICE),
        ("dice_focal", FOCAL - DICE),
        ("balanced_ce", -((math.log(0.9) + math.log(0.6)) / 2 + math.log(0.8)) / 2),
        ("topk_ce", -math.log(0.6)),  # a tenth of three voxels is the worst of them
    ],
)
def test_four_voxels_by_hand(name: str, expected: float) -> None:
    assert float(LOSSES[name](FOUR, TRUTH, IGNORE, False)) == pytest.approx(expected, rel=1e-5)


def test_the_losses_by_name() -> None:
    functions = {f.__name__: f for f in (dice_ce, dice_focal, dice, ce, balanced_ce, topk_ce, focal)}
    assert {name: LOSSES[name] for name in functions} == functions


def test_the_worst_tenth_by_hand() -> None:
    """Twenty voxels: the mean of the two worst."""
    p = torch.linspace(0.05, 0.95, 20)
    logits = torch.stack([p, 1 - p]).log().unsqueeze(0)
    loss = topk_ce(logits, torch.zeros(1, 20, dtype=torch.long), IGNORE)
    assert float(loss) == pytest.approx(-(math.log(p[0]) + math.log(p[1])) / 2, rel=1e-5)


def test_dice_of_a_batch_by_hand() -> None:
    """The second sample shows no structure, where any probability at all makes its own Dice 0; sums do not mind."""
    logits = torch.tensor([[[0.2, 0.9], [0.8, 0.1]], [[0.9, 0.9], [0.1, 0.1]]]).log()
    target = torch.tensor([[1, 0], [0, 0]])
    assert float(dice(logits, target, IGNORE)) == pytest.approx(-2 * 0.8 / (1 + 0.9) / 2, abs=1e-4)
    assert float(dice(logits, target, IGNORE, True)) == pytest.approx(-2 * 0.8 / (1 + 0.9 + 0.2), abs=1e-4)
    one = (logits[:1], target[:1], IGNORE)
    assert float(dice(*one)) == float(dice(*one, True))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_differences(name: str, batch_dice: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(3, (2, 2, 6), generator=generator)
    target[0, 0, :2] = IGNORE
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target, IGNORE, batch_dice), (logits,))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_leaves_out_what_is_ignored(name: str, batch_dice: bool) -> None:
    loss, generator = LOSSES[name], torch.Generator().manual_seed(1)
    logits, target = torch.randn(2, 4, 30, generator=generator), torch.randint(4, (2, 30), generator=generator)
    target[:, 20:] = IGNORE
    value = float(loss(logits, target, IGNORE, batch_dice))
    assert value == pytest.approx(float(loss(logits[..., :20], target[:, :20], IGNORE, batch_dice)), rel=1e-5)
    logits[..., 20:] *= 50
    assert float(loss(logits, target, IGNORE, batch_dice)) == value
    nothing = torch.randn(2, 4, 5, requires_grad=True)
    zero = loss(nothing, torch.full((2, 5), IGNORE), IGNORE, batch_dice)
    zero.backward()
    assert zero.item() == 0
    assert nothing.grad is not None
    assert nothing.grad.abs().max() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_float32_and_falls_as_the_prediction_improves(name: str) -> None:
    target = torch.randint(3, (2, 6, 6), generator=torch.Generator().manual_seed(2))
    sharp = F.one_hot(target, 3).movedim(-1, 1)
    values = [LOSSES[name]((k * sharp).bfloat16(), target, IGNORE, False) for k in (-1.0, 0.0, 1.0, 20.0)]
    assert {v.dtype for v in values} == {torch.float32}
    assert sorted(map(float, values), reverse=True) == [float(v) for v in values]
    assert float(values[-1]) == pytest.approx(-1 if "dice" in name else 0, abs=1e-4)


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


def test_deep_supervision_weights_by_hand() -> None:
    target = torch.randint(3, (2, 8, 8))
    outputs = [torch.randn(2, 3, n, n, requires_grad=True) for n in (8, 4, 2, 1)]
    assert deep_supervision(outputs[:1], target, IGNORE, focal).equal(focal(outputs[0], target, IGNORE))
    assert deep_supervision(outputs[:1], target, IGNORE, dice, True).equal(dice(outputs[0], target, IGNORE, True))
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
    for old, new in zip(target, resized):
        assert set(new.unique().tolist()) <= set(old.unique().tolist())


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_written_out_gradient_is_that_of_its_parts(batch_dice: bool) -> None:
    """In double precision to the last digits, over more classes than are computed at once."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 11, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(11, (3, 4, 5, 6), generator=generator)
    target[0, 0], target[1] = IGNORE, IGNORE
    whole, parts = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = dice_ce(whole, target, IGNORE, batch_dice)
    expected = ce(parts, target, IGNORE) + dice(parts, target, IGNORE, batch_dice)
    torch.testing.assert_close(loss, expected)
    (2 * loss).backward()
    (2 * expected).backward()
    torch.testing.assert_close(whole.grad, parts.grad, rtol=1e-9, atol=1e-15)


def test_half_precision_keeps_small_gradients() -> None:
    """A voxel that is right already has a gradient a thousand times smaller than its parts, which must not round it away."""
    half = torch.tensor([[[8.0, 0.0], [0.0, 8.0], [0.0, 0.5]]], dtype=torch.bfloat16).requires_grad_()
    single = half.detach().float().requires_grad_()
    target = torch.tensor([[0, 1]])
    dice_ce(half, target, IGNORE).backward()
    dice_ce(single, target, IGNORE).backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), single.grad, rtol=0.01, atol=0)


def test_a_hopeless_voxel_still_has_a_gradient() -> None:
    logits = torch.tensor([[[500.0], [0.0]]], requires_grad=True)
    loss = dice_ce(logits, torch.tensor([[1]]), IGNORE)
    loss.backward()
    assert 80 < loss.item() < 500
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[[1.0], [-1.0]]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch_dice", [False, True])
def test_a_gpu_finds_the_loss_and_gradient_of_a_cpu(batch_dice: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 21, 6, 7, 8, generator=draw), torch.randint(0, 21, (2, 6, 7, 8), generator=draw)
    target[0, 0] = 255
    results = []
    for device in ("cpu", "cuda"):
        leaf = logits.to(device).requires_grad_()
        loss = dice_ce(leaf, target.to(device), 255, batch_dice)
        loss.backward()
        assert leaf.grad is not None
        results.append((loss.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("classes", [2, 3, 8, 21])
def test_both_ways_of_summing_by_class_agree(classes: int) -> None:
    draw = torch.Generator().manual_seed(classes)
    p = torch.rand(2, classes, 50, generator=draw, dtype=torch.float64)
    index = torch.randint(0, classes, (2, 1, 50), generator=draw)
    weight = torch.randint(0, 2, (2, 50), generator=draw).double()
    picked = p.gather(1, index).squeeze(1)
    one_hot = F.one_hot(index.squeeze(1), classes).movedim(-1, 1)
    expected = [(x * weight.unsqueeze(1)).sum(2) for x in (p * one_hot, one_hot, p)]
    for sums in (sums_by_adding, sums_by_comparing):
        for computed, right in zip(sums(p, index, picked, weight), expected):
            torch.testing.assert_close(computed, right)
