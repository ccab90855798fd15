"""Ragged storage: the retained tokens of one layer of one sequence, another number of them in every
KV head.

Tokens lie flat, head after head, oldest first, in parallel columns: key `[S, D]`, value `[S, D]`,
position `[S]` and the policy's state `[S, W]`, with S the sum of the heads' lengths. One `gather`
moves all columns together. The tensors are never written to after they were made, so that forks may
share them. Keys and values may be 8-bit numbers with a scale for each token, as in KIVI (arXiv
2402.02750) and transformers' `QuantizedCache`, which take a scale for each channel of the keys: at
8 bits one for each token is enough, and a token can be evicted without its neighbours. Knows
nothing of attention, policies or batches.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from namm_llm.pages import paged

_SMALLEST = torch.finfo(torch.float32).tiny
_OPTIONAL = ("scales", "unrotated", "unrotated_scales")  # columns that not all tokens have


@dataclass(frozen=True)
class HeadTokens:
    """The N tokens of one KV head, oldest first."""

    keys: Tensor
    """`[N, D]`, after RoPE, at the positions that attention sees."""
    values: Tensor
    """`[N, D]`."""
    positions: Tensor
    """`[N]`, int32, ascending: places in the text."""
    state: Tensor
    """`[N, W]`, the policy's own."""
    scales: Tensor | None = None
    """None, or `[N, 2]` where keys and values are int8: the value of one step of the token's key
    and of its value, in the type that they had.
    """
    unrotated: Tensor | None = None
    """None, or the keys `[N, D]` as they are at position 0, where these are turned again and again
    in less than float32; int8 if the keys are.
    """
    unrotated_scales: Tensor | None = None
    """None, or `[N, 1]` where `unrotated` is int8."""

    def __len__(self) -> int:
        return self.positions.shape[0]

    def quantised(self) -> HeadTokens:
        """The same with keys and values in 8 bits, each off by at most half a step: 1/254 of the
        token's largest number.
        """
        (keys, key_scale), (values, value_scale) = quantise(self.keys), quantise(self.values)
        scales = torch.cat([key_scale, value_scale], dim=1)
        found = replace(self, keys=keys, values=values, scales=scales)
        if self.unrotated is None:
            return found
        unrotated, own = quantise(self.unrotated)
        return replace(found, unrotated=unrotated, unrotated_scales=own)

    def floats(self, part: slice = slice(None)) -> HeadTokens:
        """The tokens `part` with keys and values as floats; the same tensors if nothing was
        quantised.
        """
        keys, values = self.keys[part], self.values[part]
        positions, state = self.positions[part], self.state[part]
        if self.scales is not None:
            keys, values = keys * self.scales[part, :1], values * self.scales[part, 1:]
        return HeadTokens(keys, values, positions, state)

    @classmethod
    def joined(cls, parts: Sequence[HeadTokens]) -> HeadTokens:
        """The tokens of all parts, older ones first; all quantised or none."""
        if len(parts) == 1:
            return parts[0]
        names = parts[0].columns()
        return cls(**{name: torch.cat([part.columns()[name] for part in parts]) for name in names})

    def columns(self) -> dict[str, Tensor]:
        """The tensors by name, without scales if nothing was quantised."""
        return _columns(self)

    @property
    def token_nbytes(self) -> int:
        """Bytes of one token with all its columns."""
        columns = self.columns().values()
        return sum(column.shape[1:].numel() * column.element_size() for column in columns)


def quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`rows` `[N, D]` as int8 `[N, D]` times a scale of each row `[N, 1]`, in the type of the
    rows.
    """
    scale = rows.abs().amax(-1, keepdim=True).div_(127)
    steps = (rows.float() / scale.float().clamp_min(_SMALLEST)).round_().clamp_(-127, 127)
    return steps.to(torch.int8), scale


@dataclass(frozen=True)
class RaggedTokens:
    """The tokens of G KV heads in flat columns, S in all, head after head."""

    keys: Tensor
    """`[S, D]`."""
    values: Tensor
    """`[S, D]`."""
    positions: Tensor
    """`[S]`, int32, ascending within a head."""
    state: Tensor
    """`[S, W]`, the policy's own."""
    lengths: tuple[int, ...]
    """`[G]`: tokens of each head."""
    scales: Tensor | None = None
    """None, or `[S, 2]` where keys and values are int8; see `HeadTokens`."""
    unrotated: Tensor | None = None
    """None, or `[S, D]`; see `HeadTokens`."""
    unrotated_scales: Tensor | None = None
    """None, or `[S, 1]`; see `HeadTokens`."""

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
    def gather(cls, heads: Sequence[HeadTokens], keep: Sequence[Tensor | None]) -> RaggedTokens:
        """The tokens `keep[g]` (ascending indices, None = all) of each head, written once into new
        flat columns.
        """
        return cls.gather_parts([[head] for head in heads], keep)

    @classmethod
    def gather_parts(
        cls, heads: Sequence[Sequence[HeadTokens]], keep: Sequence[Tensor | None]
    ) -> RaggedTokens:
        """`gather` from heads whose tokens lie in several parts, older ones first; the indices
        count through all parts.
        """
        parts = [part for head in heads for part in head]
        rows = [index for head, k in zip(heads, keep, strict=True) for index in _split(head, k)]
        lengths = [len(p) if k is None else len(k) for p, k in zip(parts, rows, strict=True)]

        def column(name: str) -> Tensor:
            sources = [part.columns()[name] for part in parts]
            out = paged(sources[0], sum(lengths))
            for source, target, k in zip(sources, torch.split(out, lengths), rows, strict=True):
                if k is None:
                    target.copy_(source)
                else:
                    torch.index_select(source, 0, k, out=target)
            return out

        sizes = (
            sum(map(len, head)) if k is None else len(k)
            for head, k in zip(heads, keep, strict=True)
        )
        return cls(**{name: column(name) for name in parts[0].columns()}, lengths=tuple(sizes))

    @cached_property
    def starts(self) -> array[int]:
        """`[G + 1]`: the first token of each head, and the end."""
        return array("q", accumulate(self.lengths, initial=0))

    @cached_property
    def is_contiguous(self) -> bool:
        """Whether each column is one piece of memory."""
        return all(column.is_contiguous() for column in self.columns().values())

    @cached_property
    def addresses(self) -> tuple[int, int, int, int]:
        """Of keys, values, scales (0 for none) and `starts`, for kernels on a CPU."""
        scales = 0 if self.scales is None else self.scales.data_ptr()
        return self.keys.data_ptr(), self.values.data_ptr(), scales, self.starts.buffer_info()[0]

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

    def heads(self) -> list[HeadTokens]:
        """Views of the columns, one for each KV head."""
        columns = self.columns()
        parts = zip(
            *(torch.split(column, list(self.lengths)) for column in columns.values()), strict=True
        )
        return [HeadTokens(**dict(zip(columns, part, strict=True))) for part in parts]

    def floats(self) -> RaggedTokens:
        """All tokens with keys and values as floats."""
        if self.scales is None:
            return self
        keys, values = self.keys * self.scales[:, :1], self.values * self.scales[:, 1:]
        plain = replace(self, scales=None, unrotated=None, unrotated_scales=None)
        return replace(plain, keys=keys, values=values)

    def to(self, device: torch.device) -> RaggedTokens:
        """The same on another device."""
        columns = {name: column.to(device) for name, column in self.columns().items()}
        return RaggedTokens(**columns, lengths=self.lengths)

    @property
    def dtype(self) -> torch.dtype:
        """Type of keys and values when attention is computed."""
        return self.keys.dtype if self.scales is None else self.scales.dtype

    def columns(self) -> dict[str, Tensor]:
        """The tensors by name, for counting and saving."""
        return _columns(self)


def _columns(tokens: HeadTokens | RaggedTokens) -> dict[str, Tensor]:
    columns = {name: getattr(tokens, name) for name in ("keys", "values", "positions", "state")}
    optional = {name: getattr(tokens, name) for name in _OPTIONAL}
    return columns | {name: column for name, column in optional.items() if column is not None}


def _split(parts: Sequence[HeadTokens], keep: Tensor | None) -> list[Tensor | None]:
    """Indices through all parts as indices of each part."""
    if keep is None or len(parts) == 1:
        return [keep] * len(parts)
    starts = [0, *accumulate(map(len, parts))]
    cuts = torch.searchsorted(keep, keep.new_tensor(starts)).tolist()
    return [
        keep[begin:end] - start for begin, end, start in zip(cuts, cuts[1:], starts, strict=False)
    ]


@dataclass(frozen=True)
class VarlenTokens:
    """Tokens of G KV heads as kernels take them, with lengths that may change on the device."""

    keys: Tensor
    """`[S, D]`, head after head, rows that may lie apart."""
    values: Tensor
    """`[S, D]`, alike."""
    starts: Tensor
    """`[G]`, int32, on the device: row of each head's first token."""
    lengths: Tensor
    """`[G]`, int32, on the device."""
    longest: int
    """At least the longest length."""
    scales: Tensor | None = None
    """None, or `[S, 2]` where keys and values are int8; see `HeadTokens`."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of keys and values when attention is computed."""
        return self.keys.dtype if self.scales is None else self.scales.dtype
