"""Memory that one computation after the other uses, because fresh memory costs as much as what is computed in it."""

from __future__ import annotations

from torch import Tensor


class Scratch:
    """Grows to the largest size that was asked for. Whoever asks again writes over what is there."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def floats(self, count: int, like: Tensor) -> Tensor:
        """`[count]`, of any content, of the type and on the device of `like`."""
        if self._buffer is None or self._buffer.numel() < count or self._buffer.device != like.device or self._buffer.dtype != like.dtype:
            self._buffer = like.new_empty(count)
        return self._buffer[:count]
