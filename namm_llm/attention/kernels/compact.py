"""Eviction as one pass: a token's key, value, position and state are moved together by the index of the kept token.

Definition: `RaggedTokens.gather`.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from namm_llm.ragged import RaggedTokens, Segment

_TOKENS = 32  # of one program


def gather(segments: Sequence[Segment], keep: Sequence[Tensor | None]) -> RaggedTokens:
    """As of `RaggedTokens.gather`: the tokens `keep[g]` (ascending indices, None = all) of each segment in new flat columns."""
    lengths = tuple(len(s) if k is None else len(k) for s, k in zip(segments, keep, strict=True))
    first = segments[0]
    keys, values, positions, state = (
        column.new_empty(sum(lengths), *column.shape[1:]) for column in (first.keys, first.values, first.positions, first.state)
    )
    flat = RaggedTokens(keys, values, positions, state, lengths)
    for segment, target, index in zip(segments, flat.segments(), keep, strict=True):
        if len(target):
            _move(segment, target, index)
    return flat


def _move(source: Segment, target: Segment, index: Tensor | None) -> None:
    columns = (source.keys, source.values, source.state)
    assert all(column.shape[1] == 0 or column.stride(1) == 1 for column in columns), "numbers of a token lie side by side"
    widths = [column.shape[1] for column in columns]
    _gather[(triton.cdiv(len(target), _TOKENS),)](
        source.keys, source.values, source.state, source.positions, target.keys, target.values, target.state, target.positions,
        source.positions if index is None else index, len(target), *(column.stride(0) for column in columns),
        ALL=index is None, KEY=widths[0], VALUE=widths[1], STATE=widths[2],
        KEY_TILE=triton.next_power_of_2(widths[0]), VALUE_TILE=triton.next_power_of_2(widths[1]),
        STATE_TILE=triton.next_power_of_2(max(1, widths[2])), TOKENS=_TOKENS,
    )  # fmt: skip


@triton.jit
def _row(source, target, old, new, live, stride, WIDTH: tl.constexpr, TILE: tl.constexpr):
    at = tl.arange(0, TILE)
    used = live[:, None] & (at[None, :] < WIDTH)
    tl.store(target + new[:, None] * WIDTH + at[None, :], tl.load(source + old[:, None] * stride + at[None, :], mask=used), mask=used)


@triton.jit
def _gather(
    keys, values, state, positions, new_keys, new_values, new_state, new_positions, index, count, key_row, value_row, state_row,
    ALL: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, STATE: tl.constexpr,
    KEY_TILE: tl.constexpr, VALUE_TILE: tl.constexpr, STATE_TILE: tl.constexpr, TOKENS: tl.constexpr,
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
