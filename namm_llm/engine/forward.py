"""The only place that calls a model: read a prompt, decode one step, score a given text.

Every call goes through `step` or `feed`. A prompt is cut into chunks, and also at every eviction
step where a budget is shared by all layers, which have to reach it at the same token, or where
positions go back at it.
No torch context is held across a `yield`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from namm_llm.cache import ManagedCache
from namm_llm.cache.transformers import device_of
from namm_llm.engine.cancel import CancelFlag
from namm_llm.errors import ModelError
from namm_llm.models.packed.step import decode_step
from namm_llm.models.vision.vision import embedded


def tokens_seen(cache: Cache) -> int:
    """Tokens that went through a cache of one sequence, or of sequences that have read alike."""
    if isinstance(cache, ManagedCache):
        return next(iter(cache.seen_tokens()), 0)
    return int(cache.get_seq_length())


def next_position(cache: Cache) -> int:
    """Where the model is to see the next token of a cache of one sequence, or of sequences that
    have read alike: the cache decides.
    """
    return cache.next_positions()[0] if isinstance(cache, ManagedCache) else tokens_seen(cache)


def ends_at_steps(cache: ManagedCache) -> bool:
    """Whether calls of the model end where an eviction step is due."""
    return cache.reads_any_length or any(each.shares_model for each in cache.configs)


def pieces_of(cache: ManagedCache, chunk: int) -> tuple[int, int]:
    """Tokens of the pieces in which a text can be read as in one reading, since these end where
    calls of at most `chunk` tokens end; and how many tokens of the first one are read already.
    """
    if not ends_at_steps(cache):
        return chunk, 0
    interval = cache.config.interval
    return max(chunk // interval, 1) * interval, tokens_seen(cache) % interval


def prefill(
    model: PreTrainedModel,
    cache: Cache,
    ids: Sequence[int],
    *,
    chunk: int,
    cancel: CancelFlag | None = None,
) -> Generator[int, None, Tensor | None]:
    """Read `ids` behind what a cache of one sequence holds.

    Yields the number of tokens read so far after each chunk of at most `chunk` tokens. Returns the
    logits `[V]` after the last token, or None if there are no ids or `cancel` was set.

    Raises ModelError if the device runs out of memory.
    """
    logits, done = None, 0
    start, tokens = tokens_seen(cache), torch.tensor([list(ids)], dtype=torch.int64)
    for size in _sizes(cache, start, len(ids), chunk):
        if cancel is not None and cancel.is_set():
            return None
        piece = slice(done, done + size)
        logits = _call(model, cache, tokens[:, piece], last_only=True)[0, -1]
        done += size
        yield done
    return logits


def feed(
    model: PreTrainedModel,
    cache: Cache,
    ids: Tensor,
    *,
    chunk: int | None = None,
    last_only: bool = False,
) -> Iterator[Tensor]:
    """Send ids `[B, T]` through the model, behind what a cache of B sequences holds.

    All sequences must have read the same number of tokens. Yields the logits of each piece,
    `[B, t, V]`, or `[B, 1, V]` with `last_only`. A piece has at most `chunk` tokens; None reads in
    one piece, as far as eviction steps allow.
    """
    start, done = tokens_seen(cache), 0
    for size in _sizes(cache, start, ids.shape[1], chunk or ids.shape[1]):
        yield _call(model, cache, ids[:, done : done + size], last_only=last_only)
        done += size


def score(model: PreTrainedModel, cache: Cache, ids: Tensor, *, chunk: int | None = None) -> Tensor:
    """Teacher-forced log-probabilities `[B, T - 1]` (float32) of ids `[B, T]`.

    Entry t is that of `ids[:, t + 1]` after what the cache holds and `ids[:, : t + 1]`. The last
    id is a target only; it does not go into the cache.
    """
    scores, done = [ids.new_empty(ids.shape[0], 0, dtype=torch.float32)], 0
    for logits in feed(model, cache, ids[:, :-1], chunk=chunk):
        targets = ids[:, done + 1 : done + 1 + logits.shape[1], None].to(logits.device)
        found = logits.float().log_softmax(-1).gather(-1, targets)[..., 0]
        scores.append(found.to(ids.device))
        done += logits.shape[1]
    return torch.cat(scores, 1)


@torch.no_grad()
def feed_embeds(
    model: PreTrainedModel, cache: Cache, embeds: Tensor, *, position: int | None = None
) -> Tensor:
    """Hidden states `[B, T, E]` of embeddings `[B, T, E]`, for what is read without token ids.

    model: one without a head. position: of all of them, where the model has its positions in the
    embeddings; without it they go on where the cache ends. In pieces where eviction steps need it.
    """
    start, states, done = tokens_seen(cache), [], 0
    for size in _sizes(cache, start, embeds.shape[1], embeds.shape[1]):
        piece = embeds[:, done : done + size]
        first = next_position(cache)
        at = torch.arange(first, first + size, device=embeds.device).expand(len(embeds), -1)
        positions = at if position is None else torch.full_like(at, position)
        with _memory_errors(cache, at):
            found = model(
                inputs_embeds=piece, position_ids=positions, past_key_values=cache, use_cache=True
            )
        states.append(found.last_hidden_state)
        done += size
    return torch.cat(states, 1)


@torch.no_grad()
def embed(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The mean of the last hidden states of a text, float32 `[D]` of length one, on the CPU."""
    tokens = torch.tensor([list(ids)], device=device_of(model.get_input_embeddings()))
    states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return torch.nn.functional.normalize(states[0].float().mean(0), dim=0).cpu()


@torch.no_grad()
def step(model: PreTrainedModel, cache: Cache, tokens: Tensor, positions: Tensor) -> Tensor:
    """Logits `[B, V]` after one more token `[B, 1]` of each sequence, at `positions` `[B, 1]`.

    Nothing waits for the device, so the call can be recorded as a CUDA graph. Raises ModelError if
    the device runs out of memory with a `ManagedCache`.
    """
    with _memory_errors(cache, positions):
        return _logits(model, cache, tokens, positions, keep=1)[:, -1]


def _sizes(cache: Cache, start: int, count: int, chunk: int) -> Iterator[int]:
    """Lengths of the pieces of `count` tokens that follow `start` others."""
    interval, stop = 0, start + count
    if isinstance(cache, ManagedCache) and ends_at_steps(cache):
        interval = cache.config.interval
    while start < stop:
        size = min(chunk, stop - start, interval - start % interval if interval else count)
        yield size
        start += size


@torch.no_grad()
def _call(model: PreTrainedModel, cache: Cache, ids: Tensor, *, last_only: bool) -> Tensor:
    """Logits `[B, T, V]` of ids `[B, T]` behind what the cache holds, or of the last token."""
    device, start = device_of(model.get_input_embeddings()), next_position(cache)
    positions = torch.arange(start, start + ids.shape[1], device=device).expand(len(ids), -1)
    with _memory_errors(cache, positions):
        if (embeds := embedded(model, ids)) is not None:
            return _logits(model, cache, ids, positions, keep=int(last_only), embeds=embeds)
        return _logits(model, cache, ids.to(device), positions, keep=int(last_only))


def _logits(
    model: PreTrainedModel,
    cache: Cache,
    ids: Tensor,
    positions: Tensor,
    *,
    keep: int,
    embeds: Tensor | None = None,
) -> Tensor:
    stepped = decode_step(model, cache, ids, positions, keep) if embeds is None else None
    if stepped is not None:
        return stepped
    logits: Tensor = model(
        input_ids=ids if embeds is None else None,
        inputs_embeds=embeds,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
    return logits


@contextmanager
def _memory_errors(cache: Cache, positions: Tensor) -> Iterator[None]:
    """Say in one line what did not fit; with another cache than ours the error stays as it is."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if not isinstance(cache, ManagedCache):
            raise
        raise out_of_memory(int(positions.max()) + 1, len(positions), cache.nbytes) from error


def out_of_memory(tokens: int, sequences: int, nbytes: int) -> ModelError:
    """What to say when a forward pass up to the position `tokens` did not fit."""
    return ModelError(
        f"the device ran out of memory with {tokens} tokens in {sequences} sequences and "
        f"{nbytes} bytes of cache; use a smaller budget, a smaller chunk or quantization='nf4'."
    )
