"""Entries of a cache (one token in one KV head of one layer): which are retained, and which tokens
have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of a document."""

    start: int
    """The first token."""
    stop: int
    """The token behind the last."""

    def __len__(self) -> int:
        return self.stop - self.start


def kept_entries(cache: ManagedCache, row: int = 0) -> Tensor:
    """Which entries of a cache are held: bool `[layers, heads, tokens seen]`, for managed layers.

    row: which sequence of a batch. Tokens in the window, which no eviction step has seen yet, are
    held everywhere.
    """
    layers = [layer.sequences[row] for layer in cache.managed]
    num_heads = len(layers[0].retained.lengths)
    held = torch.zeros(len(layers), num_heads, layers[0].seen, dtype=torch.bool)
    for index, sequence in enumerate(layers):
        positions = sequence.retained.positions.cpu().long()
        for head, own in enumerate(torch.split(positions, list(sequence.retained.lengths))):
            held[index, head, own] = True
        held[index, :, sequence.seen - sequence.window.count :] = True
    return held


def forgotten_spans(held: Tensor, most: int = 20) -> list[Span]:
    """The longest runs of tokens without any entry, longest first, of equal ones the earlier first.

    held: bool `[tokens]`, whether a token has an entry.
    """
    edges = torch.cat([torch.zeros(1), (~held).float(), torch.zeros(1)]).diff()
    starts = (edges == 1).nonzero().flatten().tolist()
    stops = (edges == -1).nonzero().flatten().tolist()
    spans = map(Span, starts, stops)
    return sorted(spans, key=lambda span: (-len(span), span.start))[:most]
