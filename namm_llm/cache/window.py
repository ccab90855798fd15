"""The window: what came since the last eviction step of one layer of one sequence.

Keys and values, and the queries that policies look back on, are dense and append-only: a token that
is decoded writes one row and copies nothing of the cache. Buffers grow by doubling up to what one
interval needs, and are given back at each eviction step, so that a cache at rest holds no empty
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SMALLEST = 16  # rows of the smallest buffer


class GrowingBuffer:
    """Parallel columns `[heads, count, ...]` in buffers that may be longer than `count`."""

    def __init__(self, *columns: Tensor) -> None:
        self._buffers = list(columns)
        self._addresses: tuple[int, ...] | None = None
        self.count = columns[0].shape[1] if columns else 0

    def append(self, *rows: Tensor, limit: int) -> None:
        """Add rows `[heads, T, ...]`, one tensor for each column, to buffers that never need more
        than `limit` rows.
        """
        new = rows[0].shape[1]
        if not self._buffers:
            self._buffers = [r.new_empty(r.shape[0], 0, *r.shape[2:]) for r in rows]
            self._addresses = None
        if self.count + new > self._buffers[0].shape[1]:
            self._grow(max(self.count + new, min(limit, max(2 * self.count, _SMALLEST))))
        for buffer, r in zip(self._buffers, rows, strict=True):
            buffer[:, self.count : self.count + new] = r
        self.count += new

    def reserve(
        self, new: int, limit: int, dtype: torch.dtype, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        """Make room for `new` rows that a kernel will write, who then adds them to `count`.

        shapes: `(heads, ...)` of a row of each column, those of `append`; columns without a size
        are float32, others of this type.
        """
        if not self._buffers:
            types = [dtype if len(shape) > 1 else torch.float32 for shape in shapes]
            self._buffers = [
                torch.empty(heads, 0, *size, dtype=each)
                for (heads, *size), each in zip(shapes, types, strict=True)
            ]
        if self.count + new > self._buffers[0].shape[1]:
            self._grow(max(self.count + new, min(limit, max(2 * self.count, _SMALLEST))))

    @property
    def addresses(self) -> tuple[int, ...]:
        """Of both columns, then the rows from one head to the next in each."""
        if self._addresses is None:
            if not all(map(_has_whole_rows, self._buffers)):
                self._grow(self._buffers[0].shape[1])
            first, second = self._buffers
            distances = [buffer.stride(0) // buffer[0, :1].numel() for buffer in self._buffers]
            self._addresses = first.data_ptr(), second.data_ptr(), *distances
        return self._addresses

    def _grow(self, capacity: int) -> None:
        self._addresses = None
        for i, buffer in enumerate(self._buffers):
            larger = buffer.new_empty(buffer.shape[0], capacity, *buffer.shape[2:])
            larger[:, : self.count] = buffer[:, : self.count]
            self._buffers[i] = larger

    def columns(self) -> list[Tensor]:
        """Views of the live rows."""
        return [buffer[:, : self.count] for buffer in self._buffers]

    def keep_last(self, count: int) -> None:
        """Forget all but the newest rows, and give the memory back."""
        self._addresses = None
        count = min(count, self.count)
        rows = slice(self.count - count, self.count)
        self._buffers = [buffer[:, rows].clone() for buffer in self._buffers] if count else []
        self.count = count

    def drop_last(self, count: int) -> None:
        """Forget the newest rows."""
        self.count = max(self.count - count, 0)

    def copy(self) -> GrowingBuffer:
        """The same rows in buffers of their own."""
        return GrowingBuffer(*(column.clone() for column in self.columns()))

    def to(self, device: torch.device) -> GrowingBuffer:
        """The same rows on another device."""
        return GrowingBuffer(*(column.to(device) for column in self.columns()))

    def tensors(self) -> list[Tensor]:
        """The buffers, empty rows included, for counting."""
        return list(self._buffers)


def _has_whole_rows(buffer: Tensor) -> bool:
    """Whether the rows of a head lie one behind the other."""
    return buffer[0].is_contiguous()
