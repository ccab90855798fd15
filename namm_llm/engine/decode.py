"""The decoding loop: one token after the other, for one sequence or several.

Every prompt is read on its own, so nothing is padded; then the caches are decoded as one batch,
which finished rows leave. No torch context is held across a `yield`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.cache import ManagedCache
from namm_llm.engine.batch import Batch
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import step, tokens_seen
from namm_llm.engine.graph.host_copy import HostCopy
from namm_llm.engine.reply import Reply
from namm_llm.models.placement import device_of


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
        device = device_of(model.get_input_embeddings())
        seen = [tokens_seen(cache) for cache in caches]
        self._positions = torch.tensor(seen, device=device)[:, None]
        self._cache = caches[0] if len(caches) == 1 else ManagedCache.join(caches)

    def step(self, tokens: Tensor) -> Tensor:
        """As of `Batch`."""
        tokens = tokens.to(self._positions.device)
        logits = step(self._model, self._cache, tokens, self._positions)
        self._positions = self._positions + 1
        return logits

    def leave(self, at: int, *, without_last: bool = False) -> ManagedCache:
        """As of `Batch`."""
        assert not without_last, "it does not run ahead"
        if len(self._positions) == 1:
            return self._cache
        single = self._cache.fork()
        single.select([at])
        others = [row for row in range(len(self._positions)) if row != at]
        self._positions = self._positions[others]
        self._cache.select(others)
        return single
