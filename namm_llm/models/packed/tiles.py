"""The layout of quantised weights in memory: tiles of 16 rows, whose sums are computed together.

A tile holds its rows' blocks one after the other. A block is [scale, low of 16 rows as float16] and
then one unit (eight for the K formats) of 32 columns: [group scales and lows of 16 rows] and the
codes, as `kernels/codes.h` describes them. Sizes are those of the file; only the 6-bit group scales
of Q4_K and Q5_K take 8 bits here (3 % more).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from namm_llm.models.packed.formats import Fields, Format

TILE = 16
"""Rows of a tile."""
_UNIT = 32
"""Columns of a unit."""


def tile_nbytes(format: Format, columns: int) -> int:
    """Bytes of one tile of matrices with so many columns."""
    return sum(width for _, width in _layout(format)) * (columns // format.block)


def to_tiles(fields: Fields) -> Tensor:
    """uint8 [tiles, tile bytes]: the fields of a matrix, rearranged; missing rows are zeros."""
    format = fields.format
    missing = (0, 0, 0, -fields.codes.shape[0] % TILE)
    padded = fields.map(lambda part: functional.pad(part, missing))
    zero = 128 if format.bits == 8 else 0  # what is stored as a zero
    codes = functional.pad(fields.codes, missing, value=zero)
    parts = {"scale": _rows_last(padded.scale, 1)}
    units = format.block // _UNIT
    if padded.low is not None:
        parts["low"] = _rows_last(padded.low, 1)
    if padded.group_scales is not None:
        parts["group_scales"] = _rows_last(padded.group_scales, units)
    if padded.group_lows is not None:
        parts["group_lows"] = _rows_last(padded.group_lows, units)
    parts |= _code_planes(_chunks(codes, units), format.bits)
    pieces = [
        parts[name][..., unit, :] if unit is not None else parts[name][..., 0, :]
        for (name, unit), _ in _layout(format)
    ]
    return torch.cat(pieces, -1).flatten(1)


def from_tiles(tiles: Tensor, format: Format, rows: int) -> Fields:
    """The fields of a matrix of so many rows; the opposite of `to_tiles`."""
    blocks = tiles.view(tiles.shape[0], -1, sum(width for _, width in _layout(format)))
    found: dict[str, list[Tensor]] = {}
    start = 0
    for (name, _), width in _layout(format):
        found.setdefault(name, []).append(blocks[..., start : start + width])
        start += width
    parts = {name: torch.stack(pieces, 2) for name, pieces in found.items()}
    signed = torch.int8 if format.bits == 6 else torch.uint8
    types = {
        "scale": torch.float16,
        "low": torch.float16,
        "group_scales": signed,
        "group_lows": torch.uint8,
    }
    fields = {name: _rows_first(parts[name], types[name]) for name in types if name in parts}
    return Fields(format=format, codes=_from_chunks(_joined(parts, format.bits)), **fields).map(
        lambda part: part[:rows]
    )


def _layout(format: Format) -> Iterator[tuple[tuple[str, int | None], int]]:
    """((part, unit or None), bytes) of a block, in order."""
    units = format.block // _UNIT
    yield ("scale", None), 2 * TILE
    if format.has_low:
        yield ("low", None), 2 * TILE
    for unit in range(units):
        if units > 1:
            yield ("group_scales", unit), TILE * _UNIT // format.group
            if format.has_low:
                yield ("group_lows", unit), TILE
        yield ("codes", unit), 512 if format.bits == 8 else 256
        if format.bits in (5, 6):
            yield ("high", unit), 64 * (format.bits - 4)


def _rows_last(part: Tensor, units: int) -> Tensor:
    """uint8 [tiles, blocks, units, bytes] of [rows, blocks * units * n]: n vectors of 16 rows."""
    tiles = part.view(part.shape[0] // TILE, TILE, -1)
    if units == 1:
        tiles = tiles.view(*tiles.shape, 1, 1)
    else:
        tiles = tiles.view(*tiles.shape[:2], -1, units, (2 if part.dtype == torch.int8 else 1))
    return tiles.permute(0, 2, 3, 4, 1).contiguous().view(torch.uint8).flatten(3)


def _rows_first(part: Tensor, dtype: torch.dtype) -> Tensor:
    """[rows, groups] of uint8 [tiles, blocks, units, bytes]."""
    vectors = _split(part.contiguous().view(dtype), TILE)
    return vectors.permute(0, 4, 1, 2, 3).reshape(part.shape[0] * TILE, -1)


def _chunks(codes: Tensor, units: int) -> Tensor:
    """uint8 [tiles, blocks, units, 8, 64]: chunks of 4 columns, row after row."""
    shaped = codes.view(codes.shape[0] // TILE, TILE, -1, units, 8, 4)
    return shaped.permute(0, 2, 3, 4, 1, 5).flatten(-2)


def _from_chunks(chunks: Tensor) -> Tensor:
    """uint8 [rows, columns]; the opposite of `_chunks`."""
    shaped = _split(chunks, 4).permute(0, 4, 1, 2, 3, 5)
    return shaped.reshape(chunks.shape[0] * TILE, -1)


def _code_planes(chunks: Tensor, bits: int) -> dict[str, Tensor]:
    """uint8 [tiles, blocks, units, bytes] by name: codes, and high bits of 5 and 6-bit codes."""
    if bits == 8:
        return {"codes": (chunks ^ 128).flatten(3)}  # signed in memory
    low = (chunks[..., 0::2, :] & 15) | ((chunks[..., 1::2, :] & 15) << 4)
    planes = {"codes": low.flatten(3)}
    if bits > 4:
        count = 8 // (bits - 4)  # chunks whose high bits share a byte
        high = (chunks >> 4).view(*chunks.shape[:-2], -1, count, chunks.shape[-1])
        joined = high[..., 0, :]
        for at in range(1, count):
            joined = joined | (high[..., at, :] << (at * (bits - 4)))
        planes["high"] = joined.flatten(3)
    return planes


def _joined(parts: dict[str, Tensor], bits: int) -> Tensor:
    """uint8 [tiles, blocks, units, 8, 64]; the opposite of `_code_planes`."""
    codes = _split(parts["codes"], 64)
    if bits == 8:
        return codes ^ 128
    chunks = torch.stack([codes & 15, codes >> 4], -2).flatten(-3, -2)
    if bits > 4:
        high = _split(parts["high"], 64).unsqueeze(-2)
        shifts = torch.arange(0, 8, bits - 4, dtype=torch.uint8).view(-1, 1)
        found = ((high >> shifts) & ((1 << (bits - 4)) - 1)).flatten(-3, -2)
        chunks = chunks | (found << 4)
    return chunks


def _split(tensor: Tensor, width: int) -> Tensor:
    """[..., n, width] of [..., n * width]."""
    return tensor.reshape(*tensor.shape[:-1], -1, width)
