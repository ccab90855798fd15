"""`Clock`: where the next token of one sequence goes, the same in every layer, for decoding in
fixed shapes.
"""

from __future__ import annotations

import torch

from namm_llm.cache.sequence import LayerSequence


class Clock:
    """Counts on the device, for the step, and on the host, which counts along and never asks the
    device.

    row, place, position: int64 `[1]`, `[1]`, `[1, 1]`: of the next key, of its query, in the text.
    lengths: int32 `[heads]`, window tokens after it. seen, window, queries: the same for the host.
    """

    def __init__(self, sequence: LayerSequence, heads: int) -> None:
        device = sequence.retained.keys.device
        self._interval = sequence.config.interval
        self._numbers = torch.zeros(3, dtype=torch.int64, device=device)
        self._pace = torch.ones(1, dtype=torch.int64, device=device)
        self.row, self.place, self.position = (
            self._numbers[0:1],
            self._numbers[1:2],
            self._numbers[2:3].view(1, 1),
        )
        self.lengths = torch.ones(heads, dtype=torch.int32, device=device)
        self.window = self.queries = self.seen = 0
        self.set(sequence)

    def set(self, sequence: LayerSequence) -> None:
        """Go on behind what the sequence holds."""
        self.window, self.queries, self.seen = (
            sequence.window.count,
            sequence.queries.count,
            sequence.seen,
        )
        for number, count in zip(
            self._numbers, (self.window, self.queries, self.seen), strict=True
        ):
            number.fill_(count)
        self.lengths.fill_(self.window + 1)

    @property
    def is_due(self) -> bool:
        """Whether an update has to come before the next token."""
        return self.window > 0 and self.seen % self._interval == 0

    def advance(self) -> None:
        """The device's count of one token, a part of the step."""
        self._numbers.add_(self._pace)
        self.lengths.add_(self._pace)

    def tick(self, tokens: int = 1) -> None:
        """The host's count."""
        self.window, self.queries, self.seen = (
            self.window + tokens,
            self.queries + tokens,
            self.seen + tokens,
        )

    def stop(self) -> None:
        """Let the device count no further: steps write over one and the same row, which nobody
        reads.
        """
        self._pace.zero_()
