"""Objects by name: built-in ones, imported when they are first used, and those that plugins add while the program runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from autoseg.errors import UsageError, first_few


class Registry(Mapping[str, Any]):
    """The objects of one kind, built-in ones first. Names cost no import; an object does when it is looked up.

    Annotated with a registry (`LossName = Annotated[str, LOSSES]`), a field of a record holds one of its names.

    Args:
        kind: the word for such an object in messages and in `autoseg.register`, such as 'loss'.
        arguments: names of the positional arguments that an object is called with.
        built_in: for each name where the object is ('autoseg.nets.blocks:ConvBlock'); None for a word that stands for no object.
    """

    def __init__(self, kind: str, arguments: tuple[str, ...], built_in: Mapping[str, str | None]) -> None:
        self.kind, self.arguments = kind, arguments
        self._homes, self._added = dict(built_in), dict[str, Any]()

    @property
    def built_in(self) -> tuple[str, ...]:
        return tuple(self._homes)

    @property
    def article(self) -> str:
        return "an" if self.kind[0] in "aeiou" else "a"

    def add(self, name: str, item: Any) -> None:
        """Add an object under a new name.

        Raises:
            UsageError: the name is invalid or exists, or the object cannot be called as one of this kind.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(
                f"the name of {self.article} {self.kind} cannot be used",
                found=repr(name),
                allowed="letters, digits and _, no digit first",
            )
        if name in self:
            raise UsageError(
                f"there is {self.article} {self.kind} '{name}' already",
                found=first_few(tuple(self), len(self)),
                fix="register it under another name",
            )
        if (problem := self._misfit(item)) is not None:
            raise UsageError(
                f"the {self.kind} '{name}' cannot be called as {self.article} {self.kind} is",
                found=problem,
                allowed=f"a function or class that takes ({', '.join(self.arguments)})",
            )
        self._added[name] = item

    def remove(self, name: str) -> None:
        """Remove an object that was added; built-in names stay."""
        self._added.pop(name, None)

    def _misfit(self, item: Any) -> str | None:
        """Describe why an object cannot be called with the arguments of this kind; None if it can."""
        if not callable(item):
            return f"an object of type {type(item).__name__}"
        try:
            inspect.signature(item).bind(*self.arguments)
        except TypeError:
            return f"one that takes {inspect.signature(item)}"
        except ValueError:  # some functions written in C do not tell their arguments
            return None
        return None

    def __getitem__(self, name: str) -> Any:
        if name in self._added:
            return self._added[name]
        home = self._homes[name]
        if home is None:
            return None
        module, _, attribute = home.partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._homes or name in self._added

    def __iter__(self) -> Iterator[str]:
        return iter((*self._homes, *self._added))

    def __len__(self) -> int:
        return len(self._homes) + len(self._added)
