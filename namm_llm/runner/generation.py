"""The loop on token ids: read a prompt in chunks, then choose one token after the other, for one sequence or several.

Every prompt is read on its own, so nothing is padded; then the caches are joined and decoded as one batch, which finished rows leave. Knows
nothing about text. No torch context is held across a `yield`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.cache import ManagedCache
from namm_llm.cache.placement import device_of
from namm_llm.errors import ModelError
from namm_llm.runner.constraint import Constraint
from namm_llm.runner.sampling import Sampler
from namm_llm.runner.stopping import CancelFlag, FinishReason


@dataclass(eq=False)
class Reply:
    """The tokens of one answer while it grows. prompt: ids of the prompt, for the repetition penalty. constraint: what the answer must
    be. cancel: ends this answer alone. finish_reason: set from outside it ends the answer (a stop string). cache: its own, once it is
    finished.
    """

    prompt: list[int]
    sampler: Sampler
    max_tokens: int
    end_ids: frozenset[int]
    constraint: Constraint | None = None
    cancel: CancelFlag | None = None
    output: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cache: ManagedCache | None = None

    def choose(self, logits: Tensor) -> int | None:
        """The next token; None if it is an end of text."""
        token = self._allowed(logits) if self.constraint else self.sampler.choose(logits, self.prompt, self.output)
        self.output.append(token)
        if token in self.end_ids:
            self.finish_reason = "stop"
            return None
        if self.constraint and self.constraint.complete:
            self.finish_reason = "stop"
        elif len(self.output) >= self.max_tokens:
            self.finish_reason = "length"
        return token

    def _allowed(self, logits: Tensor) -> int:
        assert self.constraint is not None
        token = self.sampler.choose(self.constraint.mask(logits), self.prompt, self.output)
        return self.constraint.take(token, self.max_tokens - len(self.output))

    @property
    def text_tokens(self) -> list[int]:
        """The output without the token that ended it, which is the chat template's to write."""
        ended = bool(self.output) and self.output[-1] in self.end_ids
        return self.output[:-1] if ended else self.output[:]

    def is_cancelled(self) -> bool:
        """Whether its reader has left."""
        return self.cancel is not None and self.cancel.is_set()


def tokens_seen(cache: ManagedCache) -> int:
    """Tokens that went through a cache of one sequence (or of none yet)."""
    return sum(cache.seen_tokens()[:1]) if cache.managed[0].sequences else 0


def prefill(
    model: PreTrainedModel, cache: ManagedCache, ids: list[int], *, chunk: int, cancel: CancelFlag
) -> Generator[int, None, Tensor | None]:
    """Reads `ids` behind what the cache holds; yields how many are read; returns the logits `[V]` after the last, None if cancelled."""
    seen, logits, done = tokens_seen(cache), None, 0
    while done < len(ids):
        if cancel.is_set():
            return None
        stop = min(done + chunk, len(ids))
        if cache.eviction.waits_for_model:  # all layers must come to an update at the same token
            stop = min(stop, done + cache.eviction.interval - (seen + done) % cache.eviction.interval)
        logits = _forward(model, cache, [ids[done:stop]], [seen + done])[0]
        done = stop
        yield done
    return logits


def decode(
    model: PreTrainedModel, caches: list[ManagedCache], replies: list[Reply], logits: list[Tensor], cancel: CancelFlag
) -> Iterator[tuple[int, int]]:
    """Yields (row, token) for every token of text, until all replies have a finish reason. The caches are used up."""
    rows = list(range(len(replies)))
    positions = [tokens_seen(cache) for cache in caches]
    cache = caches[0] if len(caches) == 1 else ManagedCache.join(caches)
    caches.clear()  # else what the batch evicts would stay alive in them
    while True:
        for row, scores in zip(rows, logits, strict=True):
            if cancel.is_set() or replies[row].is_cancelled():
                replies[row].finish_reason = "cancelled"
                continue
            token = replies[row].choose(scores)
            if token is not None:
                yield row, token
        staying = _part(cache, [replies[row] for row in rows])
        if not staying:
            return
        rows = [rows[at] for at in staying]
        positions = [positions[at] for at in staying]
        logits = list(_forward(model, cache, [replies[row].output[-1:] for row in rows], positions))
        positions = [position + 1 for position in positions]


def _part(cache: ManagedCache, replies: list[Reply]) -> list[int]:
    """Gives the finished replies their caches, takes them out of the batch, and returns which rows stay."""
    staying = [at for at, reply in enumerate(replies) if reply.finish_reason is None]
    for at, reply in enumerate(replies):
        if reply.finish_reason is not None:
            reply.cache = cache if len(replies) == 1 else _single(cache, at)
    if staying and len(staying) < len(replies):
        cache.select(staying)
    return staying


def _single(cache: ManagedCache, row: int) -> ManagedCache:
    single = cache.fork()
    single.select([row])
    return single


@torch.no_grad()
def _forward(model: PreTrainedModel, cache: ManagedCache, ids: list[list[int]], positions: list[int]) -> Tensor:
    """Logits `[B, V]` after the last of `ids` `[B][T]`, which stand at `positions` and the following ones."""
    device = device_of(model.get_input_embeddings())
    tokens = torch.tensor(ids, device=device)
    at = torch.tensor(positions, device=device)[:, None] + torch.arange(tokens.shape[1], device=device)
    try:
        out = model(input_ids=tokens, position_ids=at, past_key_values=cache, use_cache=True, logits_to_keep=1)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the device ran out of memory with {int(at.max()) + 1} tokens in {len(ids)} sequences and {cache.nbytes} bytes of cache; "
            "use a smaller budget, a smaller chunk or quantization='nf4'."
        ) from error
    return cast(Tensor, out.logits[:, -1])
