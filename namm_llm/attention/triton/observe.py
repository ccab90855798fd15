"""The attention that the newest queries paid to stored tokens, in one pass over the keys and
without a [Q, N] matrix.

A program owns a block of keys and walks over the queries, one hop at a time: recompute `p = exp(q k
scale - lse)`, mean over the heads of the group, then a sum, or the windowed DFT, its magnitude and
the moving average. Definitions: `Observation.rows`, `Sum.update`, `Spectrogram.update`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.attention.triton.tiles import product, stages, tile

_HOP = 16  # queries at a time of `total`
_KEYS = 64  # keys of one program
# query heads at a time, by the bytes of a number: their tile has to fit into a small card's shared
# memory
_HEADS = {2: 8, 4: 4}


def total(observation: Observation, state: Tensor, *, start: int, stop: int) -> Tensor:
    """The fold `Sum`: state `[N, 1]`, float32, plus the group-mean attention of the queries at
    positions `start .. stop - 1`.
    """
    keys = observation.keys
    out = observation.lse.new_empty(len(keys))
    if len(keys):
        with torch.cuda.device_of(keys):
            _total[(triton.cdiv(len(keys), _KEYS),)](
                *_known(observation), out, len(keys), observation.query_start, start, stop,
                observation.scale, **_sizes(observation.queries, _HOP),
            )  # fmt: skip
    return state.float() + out[:, None]


def spectrogram(
    observation: Observation,
    state: Tensor,
    *,
    start: int,
    stop: int,
    basis: Tensor,
    hop: int,
    decay: float,
) -> Tensor:
    """The fold `Spectrogram`: averages `[N, bins]`, float32, after the whole hops `start .. stop -
    1`.

    basis: `[2 * bins, 2 * hop]`, window times cosine and sine. decay: of the average, per hop.
    """
    state = state.float().contiguous()
    out, keys, bins = torch.empty_like(state), observation.keys, len(basis) // 2
    if not len(keys):
        return out
    with torch.cuda.device_of(keys):
        _spectrogram[(triton.cdiv(len(keys), _KEYS),)](
            *_known(observation), basis, state, out, len(keys), observation.query_start, start,
            (stop - start) // hop, observation.scale, decay,
            BINS=bins, BINS_TILE=tile(bins), **_sizes(observation.queries, hop),
        )  # fmt: skip
    return out


def _known(observation: Observation) -> tuple[Tensor | int, ...]:
    queries, lse, keys = observation.queries, observation.lse, observation.keys
    assert queries.stride(-1) == keys.stride(-1) == 1, "numbers of a head lie side by side"
    strides = *queries.stride()[:2], *lse.stride(), keys.stride(0)
    return queries, lse, keys, observation.positions, *strides


def _sizes(queries: Tensor, hop: int) -> dict[str, Any]:
    heads, _, size = queries.shape
    return {
        "HOP": hop,
        "HEADS": heads,
        "HEADS_TILE": min(triton.next_power_of_2(heads), _HEADS[queries.element_size()]),
        "SIZE": size,
        "SIZE_TILE": tile(size),
        "KEYS": _KEYS,
        "num_stages": stages(queries),
    }


@triton.jit
def _mean(
    key, position, queries, lse, query_head, query_row, lse_head, lse_row, first, start, stop,
    scale,
    HOP: tl.constexpr, HEADS: tl.constexpr, HEADS_TILE: tl.constexpr, SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Group-mean attention [HOP, KEYS] of the queries from position `start` on, 0 from `stop` on
    and before the text.
    """
    row = tl.arange(0, HEADS_TILE * HOP)
    at = start + row % HOP
    size = tl.arange(0, SIZE_TILE)
    row_at = at - first
    paid = tl.zeros([HOP, KEYS], dtype=tl.float32)
    for begin in tl.range(0, HEADS, HEADS_TILE, num_stages=1):
        head = begin + row // HOP
        known = (head < HEADS) & (at >= 0) & (at < stop)
        offsets = head[:, None] * query_head + row_at[:, None] * query_row + size[None, :]
        query = tl.load(queries + offsets, mask=known[:, None] & (size[None, :] < SIZE), other=0.0)
        norm = tl.load(lse + head * lse_head + row_at * lse_row, mask=known, other=float("inf"))
        logits = product(query, key) * scale - norm[:, None]
        logits = tl.where(position[None, :] <= at[:, None], logits, float("-inf"))
        paid += tl.sum(tl.reshape(tl.exp(logits), [HEADS_TILE, HOP, KEYS]), axis=0)
    return paid / HEADS


@triton.jit
def _total(
    queries, lse, keys, positions, query_head, query_row, lse_head, lse_row, key_row, out, tokens,
    first, start, stop, scale,
    HOP: tl.constexpr, HEADS: tl.constexpr, HEADS_TILE: tl.constexpr, SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    live = at < tokens
    size = tl.arange(0, SIZE_TILE)
    key = tl.load(
        keys + at[None, :].to(tl.int64) * key_row + size[:, None],
        mask=live[None, :] & (size[:, None] < SIZE),
        other=0.0,
    )
    position = tl.load(positions + at, mask=live, other=2147483647)
    paid = tl.zeros([KEYS], dtype=tl.float32)
    for hop in range(start, stop, HOP):
        mean = _mean(
            key, position, queries, lse, query_head, query_row, lse_head, lse_row, first, hop,
            stop, scale,
            HOP, HEADS, HEADS_TILE, SIZE, SIZE_TILE, KEYS,
        )  # fmt: skip
        paid += tl.sum(mean, axis=0)
    tl.store(out + at, paid, mask=live)


@triton.jit
def _spectrogram(
    queries, lse, keys, positions, query_head, query_row, lse_head, lse_row, key_row, basis, old,
    new,
    tokens, first, start, hops, scale, decay,
    BINS: tl.constexpr, BINS_TILE: tl.constexpr,
    HOP: tl.constexpr, HEADS: tl.constexpr, HEADS_TILE: tl.constexpr, SIZE: tl.constexpr,
    SIZE_TILE: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    live = at < tokens
    size = tl.arange(0, SIZE_TILE)
    key = tl.load(
        keys + at[None, :].to(tl.int64) * key_row + size[:, None],
        mask=live[None, :] & (size[:, None] < SIZE),
        other=0.0,
    )
    position = tl.load(positions + at, mask=live, other=2147483647)

    # the window times cosine and times sine, the left and the right hop of a frame apart: basis is
    # [2 BINS, 2 HOP]
    line = tl.arange(0, BINS_TILE)
    step = tl.arange(0, HOP)
    cosine = line[:, None] * (2 * HOP) + step[None, :]
    sine = cosine + BINS * 2 * HOP
    real = line[:, None] < BINS
    cosine_left = tl.load(basis + cosine, mask=real, other=0.0)
    sine_left = tl.load(basis + sine, mask=real, other=0.0)
    cosine_right = tl.load(basis + cosine + HOP, mask=real, other=0.0)
    sine_right = tl.load(basis + sine + HOP, mask=real, other=0.0)

    state = at[None, :].to(tl.int64) * BINS + line[:, None]
    used = live[None, :] & real
    average = tl.load(old + state, mask=used, other=0.0)

    stop = start + hops * HOP
    mean = _mean(
        key, position, queries, lse, query_head, query_row, lse_head, lse_row, first, start - HOP,
        stop, scale,
        HOP, HEADS, HEADS_TILE, SIZE, SIZE_TILE, KEYS,
    )  # fmt: skip
    cosine_sum = tl.dot(cosine_left, mean, input_precision="tf32x3")
    sine_sum = tl.dot(sine_left, mean, input_precision="tf32x3")
    for hop in range(start, stop, HOP):
        mean = _mean(
            key, position, queries, lse, query_head, query_row, lse_head, lse_row, first, hop,
            stop, scale,
            HOP, HEADS, HEADS_TILE, SIZE, SIZE_TILE, KEYS,
        )  # fmt: skip
        cosine_sum += tl.dot(cosine_right, mean, input_precision="tf32x3")
        sine_sum += tl.dot(sine_right, mean, input_precision="tf32x3")
        magnitude = tl.sqrt(cosine_sum * cosine_sum + sine_sum * sine_sum)
        average = decay * average + (1.0 - decay) * magnitude
        # neighbouring frames share a hop: this one is the left half of the next
        cosine_sum = tl.dot(cosine_left, mean, input_precision="tf32x3")
        sine_sum = tl.dot(sine_left, mean, input_precision="tf32x3")
    tl.store(new + state, average, mask=used)
