"""Ragged storage: the kept tokens of one layer of one sequence, another number of them in every KV head.

Tokens lie flat, head after head, oldest first, in parallel columns: key `[S, D]`, value `[S, D]`, position `[S]` and the policy's state
`[S, W]`, with S the sum of the heads' lengths. One `gather` moves all columns together. The tensors are never written to after they were
made, so that forks may share them. It knows nothing of attention, policies or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """The tokens of one KV head, oldest first.

    keys, values: `[N, D]`, keys after RoPE at their original positions. positions: `[N]`, int32. state: `[N, W]`, the policy's own.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    state: Tensor

    def __len__(self) -> int:
        return self.positions.shape[0]


@dataclass(frozen=True)
class RaggedTokens:
    """Flat columns and the number of tokens of each KV head."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    state: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def empty(cls, like: Tensor, state_width: int, state_dtype: torch.dtype) -> RaggedTokens:
        """No tokens, for keys shaped and typed as `like` `[G, T, D]`."""
        heads, _, size = like.shape
        return cls(
            keys=like.new_empty(0, size),
            values=like.new_empty(0, size),
            positions=like.new_empty(0, dtype=torch.int32),
            state=like.new_empty(0, state_width, dtype=state_dtype),
            lengths=(0,) * heads,
        )

    @classmethod
    def gather(cls, segments: Sequence[Segment], keep: Sequence[Tensor | None]) -> RaggedTokens:
        """The tokens `keep[g]` (ascending indices, None = all) of each segment, written once into new flat columns."""
        lengths = tuple(len(s) if k is None else k.shape[0] for s, k in zip(segments, keep, strict=True))

        def column(name: str) -> Tensor:
            parts: list[Tensor] = [getattr(segment, name) for segment in segments]
            out = parts[0].new_empty(sum(lengths), *parts[0].shape[1:])
            for part, target, index in zip(parts, torch.split(out, list(lengths)), keep, strict=True):
                if index is None:
                    target.copy_(part)
                else:
                    torch.index_select(part, 0, index, out=target)
            return out

        return cls(column("keys"), column("values"), column("positions"), column("state"), lengths)

    @property
    def longest(self) -> int:
        """Tokens of the fullest head."""
        return max(self.lengths)

    @property
    def is_uniform(self) -> bool:
        """Whether all heads hold equally many tokens, so that the columns can be viewed as `[G, N, ...]`."""
        return min(self.lengths) == max(self.lengths)

    def segments(self) -> list[Segment]:
        """Views of the columns, one for each KV head."""
        columns = (self.keys, self.values, self.positions, self.state)
        return [Segment(*parts) for parts in zip(*(torch.split(column, list(self.lengths)) for column in columns), strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """The columns by name, for counting and saving."""
        return {"keys": self.keys, "values": self.values, "positions": self.positions, "state": self.state}
