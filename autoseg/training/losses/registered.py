"""The loss of a plan by its name: what goes wrong in that of a plugin names the plugin, not autoseg."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.errors import AutosegError, PlanError
from autoseg.nets.device import lacks_memory
from autoseg.plan.plugins import plugin_failure, plugin_of
from autoseg.plan.registries import LOSSES
from autoseg.training.losses.segmentation import Loss


def registered_loss(name: str) -> Loss:
    """The loss of this name; that of a plugin is checked whenever it is called.

    Raises (when it is called):
        UsageError: the plugin's function has failed; names its line.
        PlanError: it returns something else than a number that depends on the logits.
    """
    loss: Loss = LOSSES[name]
    plugin = plugin_of(f"{LOSSES.kind} {name}")
    if plugin is None:
        return loss

    def checked(logits: Tensor, target: Tensor, ignore_index: int, batch_dice: bool) -> Tensor:
        try:
            value = loss(logits, target, ignore_index, batch_dice)
        except Exception as error:
            if isinstance(error, AutosegError) or lacks_memory(error):
                raise
            raise plugin_failure(f"the loss '{name}' fails", plugin.path, error, "mend that line") from error
        is_tensor = isinstance(value, Tensor)
        if not is_tensor or value.numel() != 1 or (torch.is_grad_enabled() and not value.requires_grad):
            fixed = ", which does not depend on logits" if is_tensor and value.numel() == 1 else ""
            raise PlanError(
                f"the loss '{name}' returns nothing to learn from",
                file=plugin.path,
                found=f"a tensor {tuple(value.shape)}{fixed}" if is_tensor else type(value).__name__,
                allowed="a tensor with one number, computed from logits",
            )
        return value

    return checked


def plugin_loss_hint(name: str) -> str:
    """The place of a plugin's loss, for messages about its values; empty for a built-in one."""
    plugin = plugin_of(f"{LOSSES.kind} {name}")
    if plugin is None:
        return ""
    function = getattr(LOSSES[name], "__name__", name)
    return f"look at the loss '{name}', {function} in {plugin.path}: it may divide by 0 or take the logarithm of 0"
