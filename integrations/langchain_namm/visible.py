"""What of a growing answer can be shown while it may still turn out to be a tool call."""

from __future__ import annotations

import re

_BEGINNING = re.compile(r"[{\[<`]")  # of JSON, of a mark around it, of a code block


class Visible:
    """feed: text in, text that is surely no call out. held: the rest, from the first character that
    may begin a call.
    """

    def __init__(self, may_call: bool) -> None:
        self._may_call = may_call
        self.held = ""

    def feed(self, text: str) -> str:
        """The text that can be shown now; all of it if no tools were given."""
        found = _BEGINNING.search(text) if self._may_call and not self.held else None
        if found is None and not self.held:
            return text
        border = found.start() if found else 0
        self.held += text[border:]
        return text[:border]
