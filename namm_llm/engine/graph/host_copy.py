"""`HostCopy`: brings tokens from the device to the host, which may go on until it needs them."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """One delivery at a time. What the device was given to do after `send` is not waited for."""

    def __init__(self) -> None:
        self._sent: Tensor | None = None
        self._arrival: torch.cuda.Event | None = None

    def send(self, tokens: Tensor) -> None:
        """Start bringing these, int64 `[n]`."""
        if not tokens.is_cuda:
            self._sent = tokens
            return
        self._sent = torch.empty(
            tokens.shape, dtype=tokens.dtype, pin_memory=True
        )  # a copy into other memory would wait
        self._sent.copy_(tokens, non_blocking=True)
        self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrival.record(torch.cuda.current_stream(tokens.device))

    def receive(self) -> list[int]:
        """What was sent; waits for it alone."""
        assert self._sent is not None
        if self._arrival is not None:
            self._arrival.synchronize()
        tokens: list[int] = self._sent.tolist()
        return tokens
