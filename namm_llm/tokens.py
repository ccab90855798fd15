"""Ragged storage: the kept tokens of one layer of one sequence, another number of them in every KV
head.

Tokens lie flat, head after head, oldest first, in parallel columns: key `[S, D]`, value `[S, D]`,
position `[S]` and the policy's state `[S, W]`, with S the sum of the heads' lengths. One `gather`
moves all columns together. The tensors are never written to after they were made, so that forks may
share them. Keys and values may be 8-bit numbers with a scale for each token, as in KIVI (arXiv
2402.02750) and transformers' `QuantizedCache`, which take a scale for each channel of the keys: at
8 bits one for each token does, and a token can be evicted without its neighbours. It knows nothing
of attention, policies or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadTokens:
    """The tokens of one KV head, oldest first.

    keys, values: `[N, D]`, keys after RoPE at their original positions. positions: `[N]`, int32.
    state: `[N, W]`, the policy's own. scales: None, or `[N, 2]` where keys and values are int8:
    what a step of the token's key and of its value is worth, in the type that they had.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    state: Tensor
    scales: Tensor | None = None

    def __len__(self) -> int:
        return self.positions.shape[0]

    def quantised(self) -> HeadTokens:
        """With keys and values in 8 bits, each off by at most half a step: 1/254 of the token's
        largest number.
        """
        (keys, key_scale), (values, value_scale) = quantise(self.keys), quantise(self.values)
        return replace(
            self, keys=keys, values=values, scales=torch.cat([key_scale, value_scale], dim=1)
        )

    def floats(self, part: slice = slice(None)) -> HeadTokens:
        """These tokens with keys and values as numbers to compute with; they are the same tensors
        if nothing was quantised.
        """
        columns = (self.keys, self.values, self.positions, self.state)
        keys, values, positions, state = (column[part] for column in columns)
        if self.scales is not None:
            keys, values = keys * self.scales[part, :1], values * self.scales[part, 1:]
        return HeadTokens(keys, values, positions, state)

    def join(self, newer: HeadTokens) -> HeadTokens:
        """These tokens, then those, both quantised or neither."""
        scales = (
            None
            if self.scales is None or newer.scales is None
            else torch.cat([self.scales, newer.scales])
        )
        names = ("keys", "values", "positions", "state")
        keys, values, positions, state = (
            torch.cat([getattr(self, name), getattr(newer, name)]) for name in names
        )
        return HeadTokens(keys, values, positions, state, scales)

    @property
    def token_nbytes(self) -> int:
        """Bytes of one token with all its columns."""
        columns = (self.keys, self.values, self.positions, self.state, self.scales)
        return sum(
            column[:1].numel() // max(1, len(column[:1])) * column.element_size()
            for column in columns
            if column is not None
        )


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`[N, D]` as int8 `[N, D]` and the scale of each row `[N, 1]`, in the type of the rows: `rows`
    is about int8 times scale.
    """
    scale = rows.abs().amax(-1, keepdim=True).div_(127)
    steps = (
        (rows.float() / scale.float().clamp_min(torch.finfo(torch.float32).tiny))
        .round_()
        .clamp_(-127, 127)
    )
    return steps.to(torch.int8), scale


@dataclass(frozen=True)
class RaggedTokens:
    """Flat columns and the number of tokens of each KV head."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    state: Tensor
    lengths: tuple[int, ...]
    scales: Tensor | None = None

    @classmethod
    def empty(
        cls, like: Tensor, state_width: int, state_dtype: torch.dtype, quantised: bool = False
    ) -> RaggedTokens:
        """No tokens, for keys shaped and typed as `like` `[G, T, D]`."""
        heads, _, size = like.shape
        return cls(
            keys=like.new_empty(0, size, dtype=torch.int8 if quantised else like.dtype),
            values=like.new_empty(0, size, dtype=torch.int8 if quantised else like.dtype),
            positions=like.new_empty(0, dtype=torch.int32),
            state=like.new_empty(0, state_width, dtype=state_dtype),
            lengths=(0,) * heads,
            scales=like.new_empty(0, 2) if quantised else None,
        )

    @classmethod
    def gather(cls, segments: Sequence[HeadTokens], keep: Sequence[Tensor | None]) -> RaggedTokens:
        """The tokens `keep[g]` (ascending indices, None = all) of each segment, written once into
        new flat columns.
        """
        lengths = tuple(
            len(s) if k is None else k.shape[0] for s, k in zip(segments, keep, strict=True)
        )

        def column(name: str) -> Tensor:
            parts: list[Tensor] = [getattr(segment, name) for segment in segments]
            out = parts[0].new_empty(sum(lengths), *parts[0].shape[1:])
            for part, target, index in zip(
                parts, torch.split(out, list(lengths)), keep, strict=True
            ):
                if index is None:
                    target.copy_(part)
                else:
                    torch.index_select(part, 0, index, out=target)
            return out

        scales = column("scales") if segments[0].scales is not None else None
        return cls(
            column("keys"), column("values"), column("positions"), column("state"), lengths, scales
        )

    @property
    def longest(self) -> int:
        """Tokens of the fullest head."""
        return max(self.lengths)

    @property
    def is_uniform(self) -> bool:
        """Whether all heads hold equally many tokens, so that the columns can be viewed as `[G, N,
        ...]`.
        """
        return min(self.lengths) == max(self.lengths)

    def segments(self) -> list[HeadTokens]:
        """Views of the columns, one for each KV head."""
        columns = (
            self.keys,
            self.values,
            self.positions,
            self.state,
            *(() if self.scales is None else (self.scales,)),
        )
        return [
            HeadTokens(*parts)
            for parts in zip(
                *(torch.split(column, list(self.lengths)) for column in columns), strict=True
            )
        ]

    def floats(self) -> RaggedTokens:
        """All tokens with keys and values as numbers to compute with."""
        if self.scales is None:
            return self
        keys, values = self.keys * self.scales[:, :1], self.values * self.scales[:, 1:]
        return RaggedTokens(keys, values, self.positions, self.state, self.lengths)

    @property
    def dtype(self) -> torch.dtype:
        """The type that keys and values have when they are computed with."""
        return self.keys.dtype if self.scales is None else self.scales.dtype

    def tensors(self) -> dict[str, Tensor]:
        """The columns by name, for counting and saving."""
        columns = {
            "keys": self.keys,
            "values": self.values,
            "positions": self.positions,
            "state": self.state,
        }
        return columns if self.scales is None else {**columns, "scales": self.scales}


@dataclass(frozen=True)
class VarlenTokens:
    """keys, values: `[S, D]`, head after head, rows that may lie apart. starts, lengths: `[G]`,
    int32, on the device. longest: at least the longest length. scales: None, or `[S, 2]` where keys
    and values are int8 (see `namm_llm.tokens`).
    """

    keys: Tensor
    values: Tensor
    starts: Tensor
    lengths: Tensor
    longest: int
    scales: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type that keys and values have when they are computed with."""
        return self.keys.dtype if self.scales is None else self.scales.dtype
