"""Flags by which a reader stops what is computed for it."""

from __future__ import annotations

from typing import Protocol


class CancelFlag(Protocol):
    """The part of a `threading.Event` that is needed to stop early."""

    def is_set(self) -> bool:
        """Whether to stop now."""


class AnyOf:
    """A flag that is set as soon as one of several flags is."""

    def __init__(self, *flags: CancelFlag | None) -> None:
        self._flags = [flag for flag in flags if flag is not None]

    def is_set(self) -> bool:
        """Whether one of them is set."""
        return any(flag.is_set() for flag in self._flags)
