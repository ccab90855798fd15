"""Stop strings: where the text of an answer ends, across the borders of pieces.

Text that could be the beginning of a stop string is held back until it is clear. Works on text
alone; end tokens and the token limit belong to `Answer`.
"""

from __future__ import annotations

from collections.abc import Sequence


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
