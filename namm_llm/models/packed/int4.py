"""Packed weights for torch's own int4 operator: what is used where no compiler is found.

The operator computes in bfloat16 with float32 sums: `(code - 8) * scale + zero` for groups of 32
columns, scale and zero in bfloat16. Codes of 5 to 8 bits are stored as two planes of 4 bits, one
below the other: `code = 16 * high + low`. Groups of 16 columns (Q6_K) are quantised anew to 8 bits
in groups of 32.

The operator is private to torch, so `unavailable` tries it, against the definition, before use.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from namm_llm.errors import ModelError
from namm_llm.models.packed import native
from namm_llm.models.packed.binding import Native
from namm_llm.models.packed.formats import FORMATS, Fields, Format, parse
from namm_llm.models.packed.weights import PackedWeights, TiledWeights

_GROUP = 32
_AT_ONCE = 4096
"""Rows that are repacked at a time: temporaries take many times their memory."""
_ROWS = 64
"""Rows of a block of the operator's layout divide this on every CPU."""


class Int4Weights(PackedWeights):
    """A matrix in the layout of torch's int4 operator."""

    packed: Tensor
    """uint8 [planes * padded rows, columns / 2]: two codes a byte, ordered as the CPU wants."""
    affine: Tensor
    """bfloat16 [groups, planes * padded rows, 2]: scales and zeros."""

    def __init__(
        self, packed: Tensor, affine: Tensor, *, name: str, rows: int, columns: int
    ) -> None:
        """name: the block format that the weights come from."""
        super().__init__()
        self.rows, self.columns, self.format_name = rows, columns, name
        self.padded = -(-rows // _ROWS) * _ROWS
        self.planes = packed.shape[0] // self.padded
        self.order: tuple[int, ...] = _row_order()
        self.register_buffer("packed", packed)
        self.register_buffer("affine", affine)

    @classmethod
    def of(cls, fields: Fields) -> Int4Weights:
        """Repack the fields of a matrix."""
        codes, scales, offsets, bits = (
            fields.codes,
            fields.scales(),
            fields.offsets(),
            fields.format.bits,
        )
        if fields.format.group != _GROUP:
            codes, scales, offsets = _requantise(fields.values())
            bits = 8
        planes = [(codes, scales, offsets + 8 * scales)]
        if bits > 4:
            middle = 1 << (
                bits - 5
            )  # of the high plane; moved to 8, so that no large zero is rounded
            high = ((codes >> 4) + (8 - middle), 16 * scales, offsets + 16 * middle * scales)
            planes = [high, (codes & 15, scales, 8 * scales)]
        affine = [(scale, zero) for _, scale, zero in planes]
        return cls._pack([plane[0] for plane in planes], affine, fields.format.name)

    @classmethod
    def _pack(
        cls, codes: list[Tensor], affine: list[tuple[Tensor, Tensor]], name: str
    ) -> Int4Weights:
        """codes: uint8 [rows, columns] a plane; affine: its scales and zeros [rows, groups]."""
        rows, columns = codes[0].shape
        padding = (0, 0, 0, -rows % _ROWS)
        stacked = torch.cat([functional.pad(plane, padding) for plane in codes]).int()
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(stacked, 1)
        pairs = [
            torch.stack([functional.pad(part, padding).T for part in pair], -1) for pair in affine
        ]
        joined = torch.cat(pairs, 1).bfloat16().contiguous()
        return cls(packed, joined, name=name, rows=rows, columns=columns)

    @classmethod
    def of_blocks(cls, raw: Tensor, format: Format) -> Int4Weights:
        """Repack the blocks of a file, uint8 [rows, bytes]; some rows at a time."""
        starts = range(0, max(len(raw), 1), _AT_ONCE)
        parts = [cls.of(parse(raw[start : start + _AT_ONCE], format)) for start in starts]
        joined = cls.join(parts)
        assert joined is not None, "all parts but the last fill their blocks of rows"
        return joined

    @classmethod
    def join(cls, parts: Sequence[Int4Weights]) -> Int4Weights | None:
        """One matrix below the other; None unless they are alike and fill their blocks of rows."""
        planes, columns, rows = parts[0].planes, parts[0].columns, sum(part.rows for part in parts)
        if any((part.planes, part.columns) != (planes, columns) for part in parts):
            return None
        if any(part.rows != part.padded for part in parts[:-1]):
            return None
        packed = torch.cat([part.packed.view(planes, part.padded, -1) for part in parts], 1)
        shape = (columns // _GROUP, planes, -1, 2)
        affine = torch.cat([part.affine.view(shape) for part in parts], 2)
        name = parts[0].format_name
        return cls(
            packed.flatten(0, 1), affine.flatten(1, 2), name=name, rows=rows, columns=columns
        )

    def matmul(self, x: Tensor) -> Tensor:
        """See PackedWeights. Activations and results are rounded to bfloat16."""
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16().contiguous(), self.packed, _GROUP, self.affine
        )
        found = y[:, : self.rows]
        if self.planes == 2:
            found = found + y[:, self.padded : self.padded + self.rows]
        return found.to(x.dtype)

    def values(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """See PackedWeights."""
        start, stop, _ = slice(start, stop).indices(self.rows)
        block = len(self.order)
        first, last = start // block, -(-stop // block)
        total = self._span(first, last)
        for plane in range(1, self.planes):
            before = plane * self.padded // block
            total += self._span(before + first, before + last)
        return total[start - first * block : stop - first * block].to(dtype)

    def take(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """See PackedWeights."""
        ids = ids.to(torch.int64)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.rows:
            raise IndexError(f"a row is out of range: there are {self.rows}")
        total = torch.zeros(len(ids), self.columns)
        for plane in range(self.planes):
            at = ids + plane * self.padded
            scale, zero = self.affine[:, at].float().permute(2, 1, 0).unsqueeze(-1).unbind()
            groups = self._codes(at).view(len(ids), self.columns // _GROUP, _GROUP).float()
            total += ((groups - 8) * scale + zero).view(len(ids), self.columns)
        return total.to(dtype)

    def for_this_cpu(self) -> Int4Weights:
        """Repacked if this CPU's layout is another one."""
        if self.order == _row_order():
            return self
        at = [torch.arange(self.rows) + plane * self.padded for plane in range(self.planes)]
        affine = [self.affine[:, rows].float().permute(2, 1, 0) for rows in at]
        pairs = [(pair[0], pair[1]) for pair in affine]
        return self._pack([self._codes(rows) for rows in at], pairs, self.format_name)

    def _span(self, first: int, last: int) -> Tensor:
        """float32 [rows, columns]: what the stored blocks of rows stand for, all in order."""
        block = len(self.order)
        stored = self.packed.view(-1, self.columns, block // 2)[first:last].transpose(1, 2)
        codes = torch.empty(last - first, block, self.columns, dtype=torch.uint8)
        torch.bitwise_and(stored, 15, out=codes[:, : block // 2])
        torch.bitwise_right_shift(stored, 4, out=codes[:, block // 2 :])
        if self.order != tuple(range(block)):
            codes = codes[:, list(self.order)]
        affine = self.affine[:, first * block : last * block].float()
        scale, zero = affine.permute(2, 1, 0).unsqueeze(-1).unbind()
        groups = codes.float().view(len(scale), self.columns // _GROUP, _GROUP)
        return groups.mul_(scale).add_(zero - 8 * scale).view(len(scale), self.columns)

    def _codes(self, at: Tensor) -> Tensor:
        """uint8 [n, columns]: the codes of stored rows."""
        order = torch.tensor(self.order)
        block = len(order)
        place = order[at % block]
        stored = self.packed.view(-1, self.columns, block // 2)
        half = stored[at // block, :, place % (block // 2)]
        return torch.where((place >= block // 2).unsqueeze(1), half >> 4, half & 15)


def _requantise(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit codes, scales and offsets of groups of 32 columns."""
    groups = values.view(values.shape[0], -1, _GROUP)
    low, high = groups.aminmax(dim=-1)
    scales = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny).bfloat16().float()
    codes = ((groups - low.unsqueeze(-1)) / scales.unsqueeze(-1)).round().clamp(0, 255)
    return codes.to(torch.uint8).view(values.shape), scales, low


@functools.cache
def _row_order() -> tuple[int, ...]:
    """Where row i of a block of the layout lies: low halves of the bytes, then high ones."""
    rows = torch.arange(_ROWS).view(-1, 1).expand(-1, _GROUP).int()
    pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    low, high = (pack(part.contiguous(), 1).view(-1) for part in (rows & 15, rows >> 4))
    places = torch.stack([(low & 15) | ((high & 15) << 4), (low >> 4) | (high & 240)])
    width = next(n for n in range(1, places.shape[1]) if places[0, n] == places[0, 0])
    return tuple(torch.argsort(places[:, :width].reshape(-1).long()).tolist())


def portable(weights: PackedWeights) -> PackedWeights:
    """Weights for this machine's kernels: themselves, unless saved on another one.

    Raises ModelError if they need compiled kernels, and there are none here.
    """
    if isinstance(weights, Int4Weights):
        return weights.for_this_cpu()
    compiled = native.load()
    if isinstance(compiled, Native) or not isinstance(weights, TiledWeights):
        return weights
    if weights.format_name not in FORMATS:
        raise ModelError(
            f"weights saved in {weights.format_name} need compiled kernels: {compiled}."
        )
    return Int4Weights.of(weights.fields())


@functools.cache
def unavailable() -> str | None:
    """Why torch's int4 operator cannot be used here; None if it gives the right numbers."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (96, 64), dtype=torch.uint8, generator=generator)
    scale = torch.rand(96, 2, generator=generator).half()
    fields = Fields(format=FORMATS["Q8_0"], codes=codes, scale=scale)
    x = torch.randn(3, 64, generator=generator)
    try:
        weights = Int4Weights.of(fields)
        found, stored = weights.matmul(x), weights.values(0, 96)
    except (RuntimeError, AttributeError, StopIteration, IndexError, NotImplementedError) as error:
        return f"torch's int4 operator fails: {str(error).splitlines()[0]}"
    wanted = fields.values()
    if not _close(stored, wanted) or not _close(found, x @ wanted.T):
        return "torch's int4 operator gives other numbers than its definition"
    return None


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Within what bfloat16 allows: one part in a hundred of the largest number."""
    return bool((found - wanted).abs().max() <= wanted.abs().max() / 100)
