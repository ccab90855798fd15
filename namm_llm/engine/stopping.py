"""Why an answer ends, and where its text does: stop strings, across the borders of pieces.

Text that could be the beginning of a stop string is held back until it is clear. Works on text
alone; end tokens and the token limit are `generation.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled"]


class CancelFlag(Protocol):
    """A `threading.Event`, as far as it is needed to stop early."""

    def is_set(self) -> bool:
        """Whether to stop now."""


class AnyOf:
    """Set as soon as one of several flags is."""

    def __init__(self, *flags: CancelFlag | None) -> None:
        self._flags = [flag for flag in flags if flag is not None]

    def is_set(self) -> bool:
        """Whether one is."""
        return any(flag.is_set() for flag in self._flags)


class StopStrings:
    """feed: text in, text that is surely part of the answer out. found: whether a stop string has
    come; then nothing more comes out.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string"
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if self.found:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.found = True
            _, start = min(
                found
            )  # the one that is whole first, as if the text had come letter by letter
            shown, self._held = self._held[:start], ""
            return shown
        border = len(self._held) - max(
            (_overlap(self._held, stop) for stop in self._stops), default=0
        )
        shown, self._held = self._held[:border], self._held[border:]
        return shown

    def flush(self) -> str:
        """What was held back, when nothing more can follow."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0
    )
