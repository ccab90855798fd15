"""Eviction as one pass: a token's key, value, position, state and scales are moved together by
the index of the kept token.

Definition: `RaggedTokens.gather`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from namm_llm.tokens import HeadTokens, RaggedTokens

_TOKENS = 32  # of one program


def gather(heads: Sequence[HeadTokens], keep: Sequence[Tensor | None]) -> RaggedTokens:
    """`RaggedTokens.gather`: the tokens `keep[g]` (ascending indices, None = all) of each
    head in new flat columns.
    """
    lengths = tuple(len(s) if k is None else len(k) for s, k in zip(heads, keep, strict=True))
    first = heads[0]
    columns = (first.keys, first.values, first.positions, first.state, first.scales)
    keys, values, positions, state, scales = (
        None if c is None else c.new_empty(sum(lengths), *c.shape[1:]) for c in columns
    )
    assert keys is not None
    assert values is not None
    assert positions is not None
    assert state is not None
    flat = RaggedTokens(keys, values, positions, state, lengths, scales)
    for head, target, index in zip(heads, flat.heads(), keep, strict=True):
        if len(target):
            _move(head, target, index)
    return flat


def _move(source: HeadTokens, target: HeadTokens, index: Tensor | None) -> None:
    columns, moved = _wide(source), _wide(target)
    assert all(column.shape[1] == 0 or column.stride(1) == 1 for column in columns), (
        "numbers of a token lie side by side"
    )
    key, value, state, scales = (column.shape[1] for column in columns)
    with torch.cuda.device_of(source.keys):
        _gather[(triton.cdiv(len(target), _TOKENS),)](
            *columns, source.positions, *moved, target.positions,
            source.positions if index is None else index, len(target),
            *(column.stride(0) for column in columns),
            ALL=index is None, KEY=key, VALUE=value, STATE=state, SCALES=scales,
            KEY_TILE=triton.next_power_of_2(key), VALUE_TILE=triton.next_power_of_2(value),
            STATE_TILE=triton.next_power_of_2(max(1, state)), TOKENS=_TOKENS,
        )  # fmt: skip


def _wide(head: HeadTokens) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values, state and scales, `[N, any]` each; scales have no width where nothing is
    quantised.
    """
    scales = head.keys[:, :0] if head.scales is None else head.scales
    return head.keys, head.values, head.state, scales


@triton.jit
def _row(source, target, old, new, live, stride, WIDTH: tl.constexpr, TILE: tl.constexpr):
    at = tl.arange(0, TILE)
    used = live[:, None] & (at[None, :] < WIDTH)
    tl.store(
        target + new[:, None] * WIDTH + at[None, :],
        tl.load(source + old[:, None] * stride + at[None, :], mask=used),
        mask=used,
    )


@triton.jit
def _gather(
    keys, values, state, scales, positions, new_keys, new_values, new_state, new_scales,
    new_positions, index, count,
    key_row, value_row, state_row, scales_row,
    ALL: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, STATE: tl.constexpr,
    SCALES: tl.constexpr,
    KEY_TILE: tl.constexpr, VALUE_TILE: tl.constexpr, STATE_TILE: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    new = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    live = new < count
    old = new
    if not ALL:
        old = tl.load(index + new, mask=live, other=0)
    _row(keys, new_keys, old, new, live, key_row, KEY, KEY_TILE)
    _row(values, new_values, old, new, live, value_row, VALUE, VALUE_TILE)
    tl.store(new_positions + new, tl.load(positions + old, mask=live), mask=live)
    if STATE > 0:
        _row(state, new_state, old, new, live, state_row, STATE, STATE_TILE)
    if SCALES > 0:
        _row(scales, new_scales, old, new, live, scales_row, SCALES, SCALES)
