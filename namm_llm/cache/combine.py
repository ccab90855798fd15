"""`joined_behind`: texts that were read separately, one behind the other in one cache, without
reading them again.

Keys are turned to the positions that they would have in one text; the tokens before the second text
(its beginning-of-text token and chat template) are left out, so that there is one set of sinks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from namm_llm.attention.rope import Rotation
from namm_llm.cache.cache import ManagedCache
from namm_llm.cache.layer import ManagedLayer
from namm_llm.cache.positions import compact_positions, turned
from namm_llm.cache.sequence import LayerSequence
from namm_llm.cache.update import evict
from namm_llm.cache.window import GrowingBuffer
from namm_llm.config import CacheConfig
from namm_llm.config.header import config_to_dict
from namm_llm.errors import CacheError
from namm_llm.policies.budget import Budget
from namm_llm.tokens import HeadTokens, RaggedTokens


@torch.no_grad()
def joined_behind(
    first: ManagedCache, second: ManagedCache, head: int, config: CacheConfig, rotation: Rotation
) -> ManagedCache:
    """A cache of what `first` holds and of what `second` holds behind its first `head` tokens.

    Caches of one sequence each, with the same settings but for budget and protected tokens. config:
    of the new cache. Raises CacheError for caches that cannot be joined.
    """
    _check(first, second)
    cache = first.fork()
    second = second.fork()
    for each in (cache, second):
        _retain_window(each)
    for layer, other in zip(cache.managed, second.managed, strict=True):
        layer.configs = (config,)
        pair = layer.sequences[0], other.sequences[0]
        layer.sequences = [_joined(layer, *pair, head=head, config=config, rotation=rotation)]
        layer.columns = layer.sequences[0].seen
    return cache


def _retain_window(cache: ManagedCache) -> None:
    for layer in cache.managed:
        if layer.sequences[0].window.count:
            evict([layer], 0, num_layers=len(cache.managed), keep_all=True)


def _check(first: ManagedCache, second: ManagedCache) -> None:
    if len(first.managed) < len(first.layers):
        raise CacheError("a model with sliding windows cannot join what was read separately.")
    one, other = (config_to_dict(each.config) for each in (first, second))
    varying = ("budget", "protected")
    if {**one, **dict.fromkeys(varying)} != {**other, **dict.fromkeys(varying)}:
        raise CacheError(
            f"documents that were read with other settings ({first.config.describe()}; "
            f"{second.config.describe()}) cannot be joined; read them with the same."
        )


def _joined(
    layer: ManagedLayer,
    first: LayerSequence,
    second: LayerSequence,
    *,
    head: int,
    config: CacheConfig,
    rotation: Rotation,
) -> LayerSequence:
    """Both sequences, whose windows are empty, in one layer."""
    seen = first.seen + second.seen - head
    heads: list[HeadTokens] = []
    was: list[Tensor] = []
    pairs = zip(_columns(first), _columns(second), strict=True)
    for (old, old_at), (new, new_at) in pairs:
        # ascending, so those of the text come last
        start = int((new.positions < head).sum())
        new = HeadTokens(**{name: column[start:] for name, column in new.columns().items()})
        new = replace(new, positions=new.positions + (first.seen - head))
        heads.append(_both(layer, old, old_at, new, new_at[start:]))
        was.append(torch.cat([old_at, new_at[start:]]))
    retained = RaggedTokens.gather(heads, [None] * len(heads))
    joined = replace(first, config=config, seen=seen, compacted_at=seen, window_start=None)
    joined.eviction_steps += second.eviction_steps
    joined.window_start = layer.start_after(joined)
    to = [each.positions.long() for each in heads]
    if joined.window_start is not None:
        room = layer.room(joined)
        if room is not None and retained.longest > room:
            raise CacheError(
                f"the documents keep {retained.longest} tokens in one head, and {room} fit before "
                "a window; join fewer, or read them with a smaller budget."
            )
        to = [compact_positions(each.positions, seen, joined.window_start) for each in heads]
    last = second.next_position
    joined.queries = _queries(second, rotation, joined.next_position - last, config, seen)
    return replace(joined, retained=turned(rotation, retained, was, to), window=GrowingBuffer())


def _columns(sequence: LayerSequence) -> list[tuple[HeadTokens, Tensor]]:
    """The tokens of each head, and the positions of its keys."""
    return list(zip(sequence.retained.heads(), sequence.key_positions(), strict=True))


def _both(
    layer: ManagedLayer, old: HeadTokens, old_at: Tensor, new: HeadTokens, new_at: Tensor
) -> HeadTokens:
    """One behind the other; where one keeps unrotated keys, the other gets them."""
    if (old.unrotated is None) != (new.unrotated is None):
        assert layer.compact is not None, "only compact positions keep unrotated keys"
        old = layer.compact.with_unrotated(old, old_at)
        new = layer.compact.with_unrotated(new, new_at)
    return HeadTokens.joined([old, new])


def _queries(
    sequence: LayerSequence, rotation: Rotation, shift: int, config: CacheConfig, seen: int
) -> GrowingBuffer:
    """The newest queries as the next eviction step wants them; those that are not known attend to
    nothing.
    """
    columns = sequence.queries.columns()
    count = config.policy.num_carried_queries(seen)
    if not columns or not count:
        return GrowingBuffer()
    queries, lse = (column[:, -count:] for column in columns)
    missing = count - queries.shape[1]
    zeros = queries.new_zeros(queries.shape[0], missing, queries.shape[2])
    nothing = lse.new_full((lse.shape[0], missing), torch.inf)
    moved = rotation.turn(queries, shift).to(queries.dtype)
    return GrowingBuffer(torch.cat([zeros, moved], 1), torch.cat([nothing, lse], 1))


def joined_config(
    first: CacheConfig, second: CacheConfig, *, budget: Budget | None, head: int, start: int
) -> CacheConfig:
    """Settings of two joined documents: those of the first, with the protected tokens of both.

    budget: of both. head: tokens left out at the beginning of the second. start: place of its first
    token in the whole text.
    """
    moved = ((max(a, head), b) for a, b in second.protected if b > head)
    spans = tuple((a - head + start, b - head + start) for a, b in moved)
    return replace(first, budget=budget, protected=(*first.protected, *spans))
