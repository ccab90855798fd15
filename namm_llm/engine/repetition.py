"""The end of a text: its repetition, where the policy wants one (KVzip, arXiv 2505.23416), and the
eviction step down to the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from namm_llm.cache import ManagedCache
from namm_llm.cache.repetition import fork_without_steps, observe_repetition
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import feed, tokens_seen
from namm_llm.errors import ContextError
from namm_llm.models.prompt import PromptFormat

# the authors' prompts; the text follows as the answer
WHOLE = "Repeat the previous context exactly."
PART = "Repeat the part of the previous context exactly, starting with {start}"
START = 8  # tokens before a chunk that say where it begins
PIECE = 512  # tokens of a repetition that go through the model at once
LEAST = 64  # tokens of a chunk that are worth it


def end_text(
    model: PreTrainedModel,
    cache: ManagedCache,
    ids: Sequence[int],
    format: PromptFormat,
    *,
    positions: int | None,
    cancel: CancelFlag | None = None,
) -> Iterator[int]:
    """Evict a text that `cache` has just read down to its budget; `ids` are its newest tokens.

    Yields the tokens that were repeated so far. positions: trained ones. Raises ContextError if
    these leave no room for a repetition.
    """
    if cache.config.policy.repeats:
        cache.evict(keep_all=True)
        yield from _repeat(model, cache, ids, format, positions, cancel)
    if cancel is None or not cancel.is_set():
        cache.evict()


def _repeat(
    model: PreTrainedModel,
    cache: ManagedCache,
    ids: Sequence[int],
    format: PromptFormat,
    positions: int | None,
    cancel: CancelFlag | None,
) -> Iterator[int]:
    seen, policy = tokens_seen(cache), cache.config.policy
    first, sinks = seen - len(ids), max(format.head_tokens, policy.sinks)
    begin, asked = max(first, sinks), format.request(WHOLE)
    size = policy.repeats
    if positions is not None:
        size = min(size, positions - seen - len(asked) - 4 * START)
    if size < min(LEAST, seen - begin):
        raise ContextError(
            f"policy {policy.name} reads a text of {seen} tokens once more behind itself, chunk by "
            f"chunk, but the model was trained on {positions} positions: shorten the text, or use "
            "another policy, such as replay."
        )
    for start in range(begin, seen, max(size, 1)):
        if cancel is not None and cancel.is_set():
            return
        span = (start, min(start + size, seen))
        if start > begin:
            before = format.decode(ids[start - first - START : start - first])
            asked = format.request(PART.format(start=before))
        repeated = torch.tensor([[*asked, *ids[start - first : span[1] - first]]])
        fork = fork_without_steps(cache)
        for _ in feed(model, fork, repeated, chunk=PIECE, last_only=True):
            observe_repetition(cache, fork, span, sinks)
        yield span[1] - begin
