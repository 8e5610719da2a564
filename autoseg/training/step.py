"""One training step: from a batch to better weights."""

from __future__ import annotations

import math

import torch

from autoseg.nets import Output
from autoseg.training.distributed import all_gather_names, all_reduce_float, all_reduce_gradients
from autoseg.training.loader import Loader
from autoseg.training.losses import deep_supervision
from autoseg.training.losses.landmarks import landmark_loss
from autoseg.training.losses.registered import plugin_loss_hint, registered_loss
from autoseg.training.rollback import NotFinite
from autoseg.training.run import TrainingRun
from autoseg.training.sampling import Batch
from autoseg.training.schedule import extension_factor, learning_rate_factor

GRADIENT_NORM = 12.0  # clipping, as nnU-Net


def step(run: TrainingRun, loader: Loader, progress: float) -> None:
    """Learn from the loader's next batch, and count the step and its loss.

    Raises:
        NotFinite: loss or gradient is not finite; names the cases. Nothing has changed then.
        KeyboardInterrupt: before or after, never between, the changes that make up a step.
    """
    device = run.model.device
    batch = loader.next()
    image = batch.image.to(device.torch_device, non_blocking=True)
    for group in run.optimizer.param_groups:
        group["lr"] = _learning_rate(run, progress) * group["scale"]
    with device.autocast():
        outputs = run.forward(image)
    loss = total_loss(run, outputs, batch)
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    all_reduce_gradients(run.network.parameters())
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), GRADIENT_NORM)
    loader.draw_ahead()
    local_loss, gradient = torch.stack([loss.detach(), norm]).tolist()  # a GPU is waited for once, when all is under way
    value = all_reduce_float(local_loss)
    _check_finite(value, "loss", run, batch)
    if not run.scaler.is_enabled():  # which itself leaves out steps whose gradients overflow
        _check_finite(gradient, "gradient", run, batch)
    with run.stopping.shielded():
        _update(run, value)


def total_loss(run: TrainingRun, outputs: Output, batch: Batch) -> torch.Tensor:
    """Sum of the losses of label maps and landmarks, as far as the dataset has them.

    Where several processes share the batch, this process's part of it.
    """
    torch_device, plan = run.model.device.torch_device, run.configuration.training
    parts = []
    if outputs.logits:
        label = batch.label.to(torch_device, non_blocking=True)
        ignore_index = run.job.plan.data.labels.ignore_index
        parts.append(deep_supervision(outputs.logits, label, ignore_index, registered_loss(plan.loss), plan.batch_dice))
    if outputs.maps is not None:
        points, state = batch.points.to(torch_device, non_blocking=True), batch.state.to(torch_device, non_blocking=True)
        parts.append(landmark_loss(outputs.maps, points, state, run.configuration))
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def _learning_rate(run: TrainingRun, progress: float) -> float:
    plan = run.configuration.training
    rate = plan.learning_rate * 0.5**run.state.rollbacks
    if run.state.budget_start.step:
        return rate * extension_factor(plan.schedule, progress)
    return rate * learning_rate_factor(plan.schedule, progress, plan.warmup_fraction)


def _update(run: TrainingRun, loss: float) -> None:
    run.scaler.step(run.optimizer)
    run.scaler.update()
    # The average starts short and grows, so that it forgets the random weights of the beginning.
    decay = min(run.configuration.training.ema_decay, (1 + run.state.step) / (10 + run.state.step))
    with torch.no_grad():
        averaged: list[torch.Tensor] = list(run.model.networks[0].parameters())
        torch._foreach_lerp_(averaged, list(run.network.parameters()), 1 - decay)
    run.count_step(loss)


def _check_finite(value: float, what: str, run: TrainingRun, batch: Batch) -> None:
    if not math.isfinite(value):
        hint = plugin_loss_hint(run.configuration.training.loss) if run.job.plan.data.labels.names else ""
        raise NotFinite(
            f"the {what} is not finite",
            found=f"{value} at step {run.state.step}",
            case=", ".join(all_gather_names(batch.cases)),
            fix=hint or "look at the intensities of these cases; a lower training.learning_rate in the plan may help",
        )
