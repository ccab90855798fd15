"""The loop on token ids: read a prompt in chunks, then choose one token after the other, for one
sequence or several.

Every prompt is read on its own, so nothing is padded; then the caches are decoded as one batch,
which finished rows leave. Knows nothing about text. No torch context is held across a `yield`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.cache import ManagedCache
from namm_llm.engine.batch import Batch, out_of_memory
from namm_llm.engine.graph.host_copy import HostCopy
from namm_llm.engine.reply import Reply
from namm_llm.engine.stopping import CancelFlag
from namm_llm.models.placement import device_of


def tokens_seen(cache: ManagedCache) -> int:
    """Tokens that went through a cache of one sequence (or of none yet)."""
    return sum(cache.seen_tokens()[:1]) if cache.managed[0].sequences else 0


def prefill(
    model: PreTrainedModel, cache: ManagedCache, ids: list[int], *, chunk: int, cancel: CancelFlag
) -> Generator[int, None, Tensor | None]:
    """Reads `ids` behind what the cache holds; yields how many are read; returns the logits `[V]`
    after the last, None if cancelled.
    """
    seen, logits, done = tokens_seen(cache), None, 0
    while done < len(ids):
        if cancel.is_set():
            return None
        stop = min(done + chunk, len(ids))
        if cache.eviction.waits_for_model:  # all layers must come to an update at the same token
            stop = min(
                stop, done + cache.eviction.interval - (seen + done) % cache.eviction.interval
            )
        logits = _forward(model, cache, torch.tensor([ids[done:stop]]), [seen + done])[0]
        done = stop
        yield done
    return logits


def decode(
    batch: Batch, replies: list[Reply], logits: list[Tensor], cancel: CancelFlag
) -> Iterator[tuple[int, int]]:
    """Yields (row, token) for every token of text, until all replies have a finish reason. replies,
    logits: of each row of the batch.

    Where the batch can take a token back, its next step is begun before the host has read the
    tokens, so that the device never waits for text to be made of them; what is found to be the end
    one step late is taken back. A constraint has to know each token first.
    """
    rows, scores, courier = list(range(len(replies))), torch.stack(logits), HostCopy()
    while rows:
        going = [replies[row] for row in rows]
        tokens = torch.stack([reply.pick(own) for reply, own in zip(going, scores, strict=True)])
        courier.send(tokens)
        ahead = (
            batch.runs_ahead
            and any(reply.may_go_on for reply in going)
            and not any(reply.constraint for reply in going)
        )
        if ahead:
            scores = batch.step(tokens[:, None])
        for row, reply, token in zip(rows, going, courier.receive(), strict=True):
            if cancel.is_set() or reply.is_cancelled():
                reply.finish_reason = "cancelled"
            elif (known := reply.take(token)) is not None:
                yield row, known
        staying = [at for at, reply in enumerate(going) if reply.finish_reason is None]
        for at in reversed(range(len(going))):
            if going[at].finish_reason is not None:
                going[at].cache = batch.leave(at, without_last=ahead)
        rows = [rows[at] for at in staying]
        if rows and ahead:
            scores = (
                torch.stack([scores[at] for at in staying]) if len(staying) < len(going) else scores
            )
        elif rows:
            scores = batch.step(torch.stack([tokens[at] for at in staying])[:, None])


class PlainBatch:
    """The batch of any model on any device: caches that grow, joined; they are used up. Its updates
    come with their token, so none can be taken back.
    """

    runs_ahead = False

    def __init__(self, model: PreTrainedModel, caches: list[ManagedCache]) -> None:
        self._model = model
        self._positions = [tokens_seen(cache) for cache in caches]
        self._cache = caches[0] if len(caches) == 1 else ManagedCache.join(caches)

    def step(self, tokens: Tensor) -> Tensor:
        """As of `Batch`."""
        logits = _forward(self._model, self._cache, tokens, self._positions)
        self._positions = [position + 1 for position in self._positions]
        return logits

    def leave(self, at: int, *, without_last: bool = False) -> ManagedCache:
        """As of `Batch`."""
        assert not without_last, "it does not run ahead"
        if len(self._positions) == 1:
            return self._cache
        single = self._cache.fork()
        single.select([at])
        del self._positions[at]
        self._cache.select([row for row in range(len(self._positions) + 1) if row != at])
        return single


@torch.no_grad()
def _forward(
    model: PreTrainedModel, cache: ManagedCache, ids: Tensor, positions: list[int]
) -> Tensor:
    """Logits `[B, V]` after the last of `ids` `[B, T]`, which stand at `positions` and the
    following ones.
    """
    device = device_of(model.get_input_embeddings())
    at = torch.tensor(positions, device=device)[:, None] + torch.arange(ids.shape[1], device=device)
    try:
        out = model(
            input_ids=ids.to(device),
            position_ids=at,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    except torch.OutOfMemoryError as error:
        raise out_of_memory(int(at.max()) + 1, len(ids), cache.nbytes) from error
    return cast(Tensor, out.logits[:, -1])
