"""`StepCounters`: where the next token of one sequence goes, the same in every layer."""

from __future__ import annotations

import torch

from namm_llm.cache.sequence import LayerSequence


class StepCounters:
    """Counts the tokens of one sequence on the device, for the recorded step, and on the host.

    The host counts along and never asks the device. heads: most KV heads of a layer.
    """

    def __init__(self, sequence: LayerSequence, heads: int) -> None:
        device = sequence.retained.keys.device
        self._interval = sequence.config.interval
        self._numbers = torch.zeros(3, dtype=torch.int64, device=device)
        self._increment = torch.ones(1, dtype=torch.int64, device=device)
        self.key_row, self.query_row = self._numbers[0:1], self._numbers[1:2]
        """int64 `[1]` on the device: rows of the next key and of its query in their buffers."""
        self.position = self._numbers[2:3].view(1, 1)
        """int64 `[1, 1]` on the device: position of the next token."""
        self.lengths = torch.ones(heads, dtype=torch.int32, device=device)
        """int32 `[heads]` on the device: window tokens after the next one."""
        self.window = self.queries = self.seen = 0
        """Window tokens, queries and tokens of the text so far, as the host counts them."""
        self.set(sequence)

    def set(self, sequence: LayerSequence) -> None:
        """Go on behind what the sequence holds."""
        self.window, self.queries = sequence.window.count, sequence.queries.count
        self.seen = sequence.seen
        counts = (self.window, self.queries, sequence.next_position)
        for number, count in zip(self._numbers, counts, strict=True):
            number.fill_(count)
        self.lengths.fill_(self.window + 1)

    @property
    def is_due(self) -> bool:
        """Whether an eviction step has to come before the next token."""
        return self.window > 0 and self.seen % self._interval == 0

    def advance(self) -> None:
        """The device's count of one token, a part of the recorded step."""
        self._numbers.add_(self._increment)
        self.lengths.add_(self._increment)

    def tick(self, tokens: int = 1) -> None:
        """The host's count."""
        self.window += tokens
        self.queries += tokens
        self.seen += tokens

    def stop(self) -> None:
        """Let the device count no further: steps write over one row, which nobody reads."""
        self._increment.zero_()
