"""Memory that one computation after the other uses, because fresh memory costs as much as what is
computed in it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """Grows to the largest size that was asked for. Whoever asks again writes over what is there."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def numbers(self, count: int, like: Tensor) -> Tensor:
        """`[count]`, of any content, of the type and on the device of `like`."""
        nbytes = count * like.itemsize
        if (
            self._buffer is None
            or self._buffer.numel() < nbytes
            or self._buffer.device != like.device
        ):
            self._buffer = like.new_empty(nbytes, dtype=torch.uint8)
        return self._buffer[:nbytes].view(like.dtype)
