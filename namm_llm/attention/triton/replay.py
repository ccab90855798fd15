"""The largest attention that each stored token gets from replayed queries: two passes over the
keys, no [Q, N] matrix.

The first pass gives each query's log-sum-exp over all keys, parts of the keys in parallel; the
second, for each key, the largest `q k scale - lse`. Definition:
`Observation.max_replayed_attention` in plain torch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from namm_llm.attention.triton.tiles import tile

_ROWS = 32  # queries of one tile: float32, so that tiles fit on small cards too
_KEYS = 32  # keys of one tile
_PART = 4096  # keys of one part of the first pass


def max_attention(queries: Tensor, keys: Tensor, *, scale: float) -> Tensor:
    """`[N]`, float32, for float32 queries `[R, Q, D]`, which see all keys `[N, D]`."""
    rows = queries.reshape(-1, queries.shape[-1])
    count, tokens = len(rows), len(keys)
    assert keys.stride(-1) == 1, "numbers of a head lie side by side"
    parts = triton.cdiv(tokens, _PART)
    norms = rows.new_empty(parts, count)
    out = rows.new_empty(tokens)
    sizes = {
        "SIZE": rows.shape[-1],
        "SIZE_TILE": tile(rows.shape[-1]),
        "ROWS": _ROWS,
        "KEYS": _KEYS,
        "num_stages": 1,
    }
    with torch.cuda.device_of(keys):
        _norms[(triton.cdiv(count, _ROWS), parts)](
            rows, keys, norms, keys.stride(0), count, tokens, scale, PART=_PART, **sizes
        )
        lse = norms.logsumexp(0)
        _max_attention[(triton.cdiv(tokens, _KEYS),)](
            rows, keys, lse, out, keys.stride(0), count, tokens, scale, **sizes
        )
    return out


@triton.jit
def _norms(
    rows, keys, norms, key_row, count, tokens, scale,
    PART: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    size = tl.arange(0, SIZE_TILE)
    query = tl.load(
        rows + row[:, None] * SIZE + size[None, :],
        mask=(row[:, None] < count) & (size[None, :] < SIZE),
        other=0.0,
    )
    start = tl.program_id(1) * PART
    stop = tl.minimum(start + PART, tokens)
    top = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    mass = tl.zeros([ROWS], dtype=tl.float32)
    for block in range(start, stop, KEYS):
        at = block + tl.arange(0, KEYS)
        live = at < stop
        key = tl.load(
            keys + at[None, :].to(tl.int64) * key_row + size[:, None],
            mask=live[None, :] & (size[:, None] < SIZE),
            other=0.0,
        )
        # half-precision keys are exact in tf32; the rotated queries are not, hence three products
        logits = tl.where(
            live[None, :],
            tl.dot(query, key.to(tl.float32), input_precision="tf32x3") * scale,
            float("-inf"),
        )
        higher = tl.maximum(top, tl.max(logits, axis=1))
        mass = mass * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        top = higher
    tl.store(norms + tl.program_id(1) * count + row, top + tl.log(mass), mask=row < count)


@triton.jit
def _max_attention(
    rows, keys, norms, out, key_row, count, tokens, scale,
    SIZE: tl.constexpr, SIZE_TILE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    live = at < tokens
    size = tl.arange(0, SIZE_TILE)
    key = tl.load(
        keys + at[None, :].to(tl.int64) * key_row + size[:, None],
        mask=live[None, :] & (size[:, None] < SIZE),
        other=0.0,
    )
    key = key.to(tl.float32)
    highest = tl.full([KEYS], float("-inf"), dtype=tl.float32)
    for block in range(0, count, ROWS):
        row = block + tl.arange(0, ROWS)
        query = tl.load(
            rows + row[:, None] * SIZE + size[None, :],
            mask=(row[:, None] < count) & (size[None, :] < SIZE),
            other=0.0,
        )
        norm = tl.load(norms + row, mask=row < count, other=float("inf"))
        logits = tl.dot(query, key, input_precision="tf32x3") * scale - norm[:, None]
        highest = tl.maximum(highest, tl.max(logits, axis=0))
    tl.store(out + at, tl.exp(highest), mask=live)
