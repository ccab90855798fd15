"""`HostCopy`: brings tokens from the device to the host, which may go on until it needs them."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of tokens, int64 `[n]`, on its way to the host.

    What the device was given to do after the copy began is not waited for.
    """

    def __init__(self, tokens: Tensor) -> None:
        self._sent = tokens
        self._arrival: torch.cuda.Event | None = None
        if tokens.is_cuda:
            # a copy into memory that is not pinned would wait
            self._sent = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._sent.copy_(tokens, non_blocking=True)
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(tokens.device))

    def receive(self) -> list[int]:
        """The tokens; waits for them alone."""
        if self._arrival is not None:
            self._arrival.synchronize()
        tokens: list[int] = self._sent.tolist()
        return tokens
