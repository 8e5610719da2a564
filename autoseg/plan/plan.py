"""The plan of a dataset as a whole: what its configurations share, and each of them."""

from __future__ import annotations

from dataclasses import dataclass

from autoseg.errors import UsageError, nearest
from autoseg.plan.model import Configuration, DataPlan, Origin, Target
from autoseg.plan.text import plan_note

AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """One file describes one dataset: shared data facts and one or more configurations, each complete.

    Args:
        first: the configuration to train first; what `auto` means.
    """

    schema_version: int
    name: str
    task: Target
    data: DataPlan
    default_configuration: str
    configurations: dict[str, Configuration]
    origin: Origin
    why: dict[str, str]

    def __str__(self) -> str:
        """The plan as an engineer's note, with the reason for each choice."""
        return plan_note(self)

    def configuration(self, name: str | None) -> tuple[str, Configuration]:
        """The named configuration; None or `auto` is the one to train first.

        Raises:
            UsageError: the plan has none of that name.
        """
        chosen = self.default_configuration if name in (None, AUTO) else name
        if chosen not in self.configurations:
            raise UsageError(
                f"the plan has no configuration '{chosen}'{nearest(chosen, self.configurations)}",
                allowed=", ".join((*self.configurations, AUTO)),
            )
        return chosen, self.configurations[chosen]

    def prepared_as(self, name: str) -> str:
        """The first configuration with the same grid: both are trained on the same prepared cases."""
        space = self.configurations[name].space
        return next(other for other, c in self.configurations.items() if c.space == space)

    def input_channels(self, name: str) -> int:
        """Channels that the network of a configuration sees."""
        return len(self.data.channels) + self.n_previous_classes(self.configurations[name])

    def n_previous_classes(self, configuration: Configuration) -> int:
        """Channels that the network makes of what the stage before found, structures, or landmarks where there are none; 0 for a
        first stage."""
        return (len(self.data.labels.names) or len(self.data.landmarks)) if configuration.previous_stage is not None else 0
