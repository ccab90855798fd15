"""Block formats against a decoder that reads one number at a time."""

from __future__ import annotations

import struct

import pytest
import torch

from namm_llm.models.packed.formats import FORMATS, format_of, parse
from namm_llm.models.packed.native import random_blocks
from namm_llm.models.packed.tiles import TILE, from_tiles, tile_nbytes, to_tiles


def _half(block: bytes, at: int) -> float:
    return float(struct.unpack_from("<e", block, at)[0])


def _nibble(block: bytes, start: int, column: int, run: int) -> int:
    """The code of a column where `run` bytes hold the low halves, then the high ones."""
    byte = block[start + column // (2 * run) * run + column % run]
    return byte >> 4 if column // run % 2 else byte & 15


def _bit(block: bytes, start: int, at: int) -> int:
    return block[start + at // 8] >> (at % 8) & 1


def _six_bits(block: bytes, group: int) -> tuple[int, int]:
    """Scale and minimum of a group of Q4_K and Q5_K."""
    packed = block[4:16]
    if group < 4:
        return packed[group] & 63, packed[group + 4] & 63
    high_scale, high_low = packed[group - 4] >> 6, packed[group] >> 6
    return packed[group + 4] & 15 | high_scale << 4, packed[group + 4] >> 4 | high_low << 4


def _weight(name: str, block: bytes, column: int) -> float:
    """One weight, as the format is described."""
    if name == "Q8_0":
        return _half(block, 0) * int.from_bytes(block[2 + column : 3 + column], signed=True)
    if name in ("Q4_0", "Q5_0"):
        fifth = 16 * _bit(block, 2, column) if name == "Q5_0" else 0
        middle = 16 if name == "Q5_0" else 8
        return _half(block, 0) * (_nibble(block, len(block) - 16, column, 16) + fifth - middle)
    if name in ("Q4_1", "Q5_1"):
        fifth = 16 * _bit(block, 4, column) if name == "Q5_1" else 0
        code = _nibble(block, len(block) - 16, column, 16) + fifth
        return _half(block, 0) * code + _half(block, 2)
    if name == "Q6_K":
        half, run, at = column // 128, column // 32 % 4, column % 32
        low = block[64 * half + 32 * (run % 2) + at] >> (4 if run > 1 else 0) & 15
        high = block[128 + 32 * half + at] >> (2 * run) & 3
        scale = struct.unpack_from("b", block, 192 + column // 16)[0]
        return _half(block, 208) * scale * ((low | high << 4) - 32)
    scale, low = _six_bits(block, column // 32)
    fifth = block[16 + column % 32] >> (column // 32) & 1 if name == "Q5_K" else 0
    code = _nibble(block, len(block) - 128, column, 32) + 16 * fifth
    return _half(block, 0) * scale * code - _half(block, 2) * low


@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_the_format(name: str) -> None:
    format, generator = FORMATS[name], torch.Generator().manual_seed(1)
    raw = random_blocks(name, 3, 512, generator)
    found = parse(raw, format).values()
    for row in range(3):
        data = bytes(raw[row].tolist())
        for column in range(512):
            start = column // format.block * format.nbytes
            block = data[start : start + format.nbytes]
            wanted = torch.tensor(_weight(name, block, column % format.block))
            assert torch.isclose(found[row, column], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rows", [1, 16, 35])
def test_tiles_hold_every_field(name: str, rows: int) -> None:
    fields = parse(random_blocks(name, rows, 768, torch.Generator().manual_seed(2)), FORMATS[name])
    tiles = to_tiles(fields)
    assert tiles.shape == (-(-rows // TILE), tile_nbytes(FORMATS[name], 768))
    back = from_tiles(tiles, FORMATS[name], rows)
    for part in ("codes", "scale", "low", "group_scales", "group_lows"):
        stored, wanted = getattr(back, part), getattr(fields, part)
        assert (stored is None and wanted is None) or torch.equal(stored, wanted)


@pytest.mark.parametrize("name", FORMATS)
def test_tiles_take_the_room_of_the_file(name: str) -> None:
    format = FORMATS[name]
    assert tile_nbytes(format, 1024) <= 1.03 * (TILE * 1024 // format.block * format.nbytes)


def test_formats_are_found_by_number_and_name() -> None:
    assert format_of(3) is format_of("q4_1") is FORMATS["Q4_1"]
    assert format_of(10) is None
    assert format_of("IQ4_NL") is None
