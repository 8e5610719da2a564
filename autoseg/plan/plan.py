"""The plan of a dataset as a whole: what its configurations share, and each of them."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.errors import UsageError, nearest
from autoseg.plan.model import Configuration, DataPlan, Origin, Rung, Target
from autoseg.plan.text import plan_text

AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """One file describes one dataset: shared data facts and one or more configurations, each complete.

    Args:
        default_configuration: the one to train first; what `auto` means.
        ladder: configurations on ever coarser grids, the finest first, among which a limit of time chooses; empty
            where there is nothing to choose.
    """

    schema_version: int
    name: str
    task: Target
    data: DataPlan
    default_configuration: str
    configurations: dict[str, Configuration]
    ladder: tuple[Rung, ...]
    origin: Origin
    why: dict[str, str]

    def __str__(self) -> str:
        """The plan as an engineer's note, with the reason for each choice."""
        return plan_text(self)

    def configuration(self, name: str | None) -> tuple[str, Configuration]:
        """Finds a configuration by name; None or `auto` is the one to train first.

        Raises:
            UsageError: the plan has none of that name.
        """
        key = self.default_configuration if name is None or name == AUTO else name
        if key not in self.configurations:
            raise UsageError(
                f"the plan has no configuration '{key}'{nearest(key, self.configurations)}",
                allowed=", ".join((*self.configurations, AUTO)),
            )
        return key, self.configurations[key]

    def prepared_as(self, name: str) -> str:
        """Finds the first configuration with the same grid: both are trained on the same prepared cases."""
        space = self.configurations[name].space
        return next(other for other, c in self.configurations.items() if c.space == space)

    def input_channels(self, name: str) -> int:
        """Channels that the first convolution of a configuration's network takes."""
        return len(self.data.channels) + self.n_previous_classes(self.configurations[name])

    def n_previous_classes(self, configuration: Configuration) -> int:
        """Channels that the network makes of what the previous stage found; 0 without a previous stage.

        One for each structure, or for each landmark where there are no structures.
        """
        return (len(self.data.labels.names) or len(self.data.landmarks)) if configuration.previous_stage is not None else 0
