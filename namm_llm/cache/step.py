"""Room in a cache for a few new tokens of each sequence that a kernel stores by itself.

A kernel that runs all layers in one call writes keys, values and queries where `reserve` says; then
`advance` counts them and runs the eviction steps. The result is that of `ManagedCache.update`.
"""

from __future__ import annotations

import torch

from namm_llm.cache.cache import ManagedCache


def takes(cache: ManagedCache, rows: int, tokens: int, dtype: torch.dtype) -> bool:
    """Whether each of `rows` sequences, in float numbers of this type on a CPU, has room for so
    many tokens up to its next eviction step, at the positions that the model gives them.
    """
    counts_on = len(cache.managed) < len(cache.layers)  # see `ManagedCache.next_positions`
    if counts_on and any(
        s.window_start is not None for each in cache.managed for s in each.sequences
    ):
        return False
    return all(
        len(layer.sequences) == rows
        and all(each.room >= tokens and each.is_stored_as(dtype) for each in layer.sequences)
        for layer in cache.layers
    )


def reserve(cache: ManagedCache, tokens: int, heads: int) -> list[int]:
    """`sequence_t` of native/kernels/attend.h of each layer's sequences, as integers; the addresses
    are good until the cache changes.
    """
    return [
        number
        for layer in cache.layers
        for sequence in layer.sequences
        for number in sequence.reserve(tokens, heads)
    ]


def advance(cache: ManagedCache, tokens: int) -> None:
    """Count the tokens that were stored, and run the eviction steps that are due."""
    for layer in cache.layers:
        layer.columns += tokens
        for sequence in layer.sequences:
            sequence.advance(tokens)
    for layer in cache.managed:
        for row, sequence in enumerate(layer.sequences):
            if sequence.is_due:
                cache.evict_due(layer, row)
