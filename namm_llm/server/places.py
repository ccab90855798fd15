"""`Places`: how much of one kind of work a server takes on at one time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from namm_llm.server.errors import ApiError, overloaded


class Places:
    """A number of places, for the event loop alone. what: that they are for, in the plural."""

    def __init__(self, most: int, what: str) -> None:
        self.taken = 0
        self._most = most
        self._what = what

    @contextmanager
    def take(self, count: int = 1) -> Iterator[None]:
        """Hold `count` of them. ApiError if too many are taken, or there will never be so many."""
        if count > self._most:
            message = f"one request asks for {count} {self._what}, and {self._most} may be."
            raise ApiError(400, message, code="invalid_value")
        if self.taken + count > self._most:
            raise overloaded(f"{self.taken} {self._what} are in work or wait, {self._most} may")
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count
