"""Attention of each KV head's group of query heads over that head's own tokens, with the
log-sum-exp.

A program has a tile of a group's rows and a part of the head's keys; few queries leave many
parts to work on (split-K decoding). Starts and lengths are read on the device, so that a recorded
graph goes on when lengths change. Definition: `partial.reference` for each head.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import torch
import triton
import triton.language as tl
from torch import Tensor

from namm_llm.attention.triton.tiles import product, stages, tile
from namm_llm.tokens import VarlenTokens

# rows of a tile at most, by the bytes of a number: two tiles of 128 numbers a row fit into any card
_ROWS = {2: 64, 4: 32}
_KEYS = 64  # keys of a tile
_PROGRAMS = 512  # enough for every GPU of today
_PART = 256  # keys of a part at least, so that merging stays cheap


@lru_cache(maxsize=1024)
def bounds(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Starts and lengths of heads that lie one after the other; kept, so that a decoded token
    copies nothing to the device.
    """
    both = torch.tensor([lengths, lengths], dtype=torch.int32)
    both[0] = both[1].cumsum(0) - both[1]
    with torch.inference_mode(False):
        starts, sizes = both.to(device)
    return starts, sizes


def attend(
    query: Tensor, parts: list[tuple[VarlenTokens, bool]], *, scale: float
) -> tuple[Tensor, Tensor]:
    """Output `[H, T, D]` and log-sum-exp `[H, T]`, float32, over several disjoint parts together.

    query: `[H, T, D]`, contiguous. parts: each with whether it is causal: the T queries are then
    the newest tokens.
    """
    heads, new, _ = query.shape
    values = parts[0][0].values
    splits = [_splits(tokens, query) for tokens, _ in parts]
    out = query.new_empty(sum(splits), heads, new, values.shape[-1], dtype=torch.float32)
    lse = query.new_empty(sum(splits), heads, new, dtype=torch.float32)
    done = 0
    for (tokens, causal), count in zip(parts, splits, strict=True):
        _launch(query, tokens, causal, scale, out[done : done + count], lse[done : done + count])
        done += count
    return combine(out, lse, query.dtype)


def combine(out: Tensor, lse: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Attention over all keys from the attention over each of P parts: out `[P, ...,  D]`, lse `[P,
    ...]`, -inf for a part without keys.
    """
    whole = lse.logsumexp(0)
    weight = (
        lse - whole.clamp_min(torch.finfo(torch.float32).min)
    ).exp()  # no keys at all: -inf - -inf would be NaN
    return torch.einsum("p...d,p...->...d", out, weight).to(dtype), whole


def _splits(tokens: VarlenTokens, query: Tensor) -> int:
    groups = len(tokens.starts)
    tiles = ceil(query.shape[0] // groups * query.shape[1] / _ROWS[query.element_size()])
    return max(1, min(ceil(tokens.longest / _PART), _PROGRAMS // (groups * tiles)))


def _launch(
    query: Tensor, tokens: VarlenTokens, causal: bool, scale: float, out: Tensor, lse: Tensor
) -> None:
    assert query.is_contiguous(), "the rows of a group lie one after the other"
    assert tokens.scales is None or tokens.scales.is_contiguous(), (
        "the scales of a token lie side by side"
    )
    assert tokens.keys.stride(-1) == tokens.values.stride(-1) == 1, (
        "numbers of a head lie side by side"
    )
    heads, new, size = query.shape
    groups, splits = len(tokens.starts), len(out)
    rows = heads // groups * new
    height = min(_ROWS[query.element_size()], tile(rows))
    # parts of equal size, in whole tiles
    part = triton.cdiv(triton.cdiv(tokens.longest, splits), _KEYS) * _KEYS
    scales = tokens.scales
    with torch.cuda.device_of(query):
        _ragged[(groups, splits, triton.cdiv(rows, height))](
            query, tokens.keys, tokens.values, tokens.keys if scales is None else scales,
            tokens.starts, tokens.lengths, out, lse,
            tokens.keys.stride(0), tokens.values.stride(0), rows, new, part, scale,
            QUANTISED=scales is not None, CAUSAL=causal,
            SIZE=size, SIZE_TILE=tile(size), WIDTH=out.shape[-1], WIDTH_TILE=tile(out.shape[-1]),
            ROWS=height, KEYS=_KEYS,
            num_stages=stages(query),
        )  # fmt: skip


@triton.jit
def _ragged(
    query, keys, values, scales, starts, lengths, out, lse, key_row, value_row, rows, new, part,
    scale,
    QUANTISED: tl.constexpr, CAUSAL: tl.constexpr, SIZE: tl.constexpr, SIZE_TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_TILE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0)
    split = tl.program_id(1)
    row = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    size = tl.arange(0, SIZE_TILE)
    width = tl.arange(0, WIDTH_TILE)
    index = group * rows + row
    queried = tl.load(
        query + index[:, None] * SIZE + size[None, :],
        mask=(row[:, None] < rows) & (size[None, :] < SIZE),
        other=0.0,
    )
    begin = tl.load(starts + group).to(tl.int64)
    length = tl.load(lengths + group)
    last = length - new + row % new  # the newest key that a row may see, if the part is causal

    top = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    mass = tl.zeros([ROWS], dtype=tl.float32)
    total = tl.zeros([ROWS, WIDTH_TILE], dtype=tl.float32)
    stop = tl.minimum(split * part + part, length)
    for block in range(split * part, stop, KEYS):
        at = block + tl.arange(0, KEYS)
        live = at < stop
        token = begin + at
        key = tl.load(
            keys + token[None, :] * key_row + size[:, None],
            mask=live[None, :] & (size[:, None] < SIZE),
            other=0.0,
        )
        value = tl.load(
            values + token[:, None] * value_row + width[None, :],
            mask=live[:, None] & (width[None, :] < WIDTH),
            other=0.0,
        )
        if QUANTISED:
            # steps of -127 .. 127 are exact in half precision, so a key's scale can wait until
            # after the product; the way over float32
            # is for Triton's interpreter, which makes bfloat16 of nothing else
            step = tl.load(scales + 2 * token, mask=live, other=0.0).to(tl.float32) * scale
            logits = product(queried, key.to(tl.float32).to(queried.dtype)) * step[None, :]
            step = tl.load(scales + 2 * token + 1, mask=live, other=0.0).to(tl.float32)
            value = (value.to(tl.float32) * step[:, None]).to(queried.dtype)
        else:
            logits = product(queried, key) * scale
        seen = live[None, :]
        if CAUSAL:
            seen = seen & (at[None, :] <= last[:, None])
        logits = tl.where(seen, logits, float("-inf"))
        higher = tl.maximum(top, tl.max(logits, axis=1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen no key yet
        weight = tl.exp(logits - finite[:, None])
        fade = tl.exp(top - finite)
        mass = mass * fade + tl.sum(weight, axis=1)
        total = total * fade[:, None] + product(weight.to(value.dtype), value)
        top = higher

    whole = tl.where(mass > 0.0, mass, 1.0)
    offset = split.to(tl.int64) * tl.num_programs(0) * rows + index
    tl.store(
        out + offset[:, None] * WIDTH + width[None, :],
        total / whole[:, None],
        mask=(row[:, None] < rows) & (width[None, :] < WIDTH),
    )
    norm = tl.where(
        mass > 0.0, tl.where(top == float("-inf"), 0.0, top) + tl.log(whole), float("-inf")
    )
    tl.store(lse + offset, norm, mask=row < rows)
