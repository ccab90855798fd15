"""Block formats of quantised weights: the bytes of a row, taken apart, and what they stand for.

Every format stores a weight as `scale * code + offset` with an unsigned code and one scale and
offset for each group of 16 or 32 columns. `Fields` holds the codes and the stored parts of scales
and offsets; `Fields.values` is the definition that every kernel is tested against.

Source: the block layouts of GGML (ggml-common.h, version 2 of the GGUF quantisation types).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Format:
    """One block format."""

    name: str
    """The name that GGML gives it, such as Q4_1."""
    ggml_type: int
    """Its number in a GGUF file."""
    block: int
    """Columns of one block."""
    nbytes: int
    """Bytes of one block."""
    bits: int
    """Bits of a code: 4, 5, 6 or 8."""
    group: int
    """Columns that share a scale: 16 or 32."""

    @property
    def has_low(self) -> bool:
        """Whether minima are stored; otherwise the middle code stands for zero."""
        return self.name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K")

    @property
    def scale_offsets(self) -> tuple[int, ...]:
        """Bytes of a block before each of its float16 scales."""
        return (208,) if self.name == "Q6_K" else (0, 2) if self.has_low else (0,)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The parts of a quantised matrix [rows, columns], one tensor a kind."""

    format: Format
    """The block format."""
    codes: Tensor
    """uint8 [rows, columns]: unsigned codes below 2**bits."""
    scale: Tensor
    """float16 [rows, blocks]: the scale of a block, or of its group scales."""
    low: Tensor | None = None
    """float16 [rows, blocks]: added (Q4_1, Q5_1), or the scale of group_lows (K formats)."""
    group_scales: Tensor | None = None
    """[rows, groups] uint8 (Q4_K, Q5_K) or int8 (Q6_K): group scales in units of `scale`."""
    group_lows: Tensor | None = None
    """uint8 [rows, groups]: group minima in units of `low`, subtracted (Q4_K, Q5_K)."""

    def scales(self) -> Tensor:
        """float32 [rows, groups]: what a code is multiplied by. Exact."""
        scale = self.scale.float()
        if self.group_scales is None:
            return scale
        groups = self.group_scales.shape[1] // scale.shape[1]
        return scale.repeat_interleave(groups, 1) * self.group_scales.float()

    def offsets(self) -> Tensor:
        """float32 [rows, groups]: what is added to a scaled code. Exact."""
        if self.low is None:
            return self.scales() * -(1 << (self.format.bits - 1))
        low = self.low.float()
        if self.group_lows is None:
            return low
        groups = self.group_lows.shape[1] // low.shape[1]
        return -(low.repeat_interleave(groups, 1) * self.group_lows.float())

    def values(self) -> Tensor:
        """float32 [rows, columns]: the weights, rounded once, as GGML dequantises them."""
        rows, columns = self.codes.shape
        codes = self.codes.view(rows, -1, self.format.group).float()
        scaled = codes * self.scales().unsqueeze(-1)
        return (scaled + self.offsets().unsqueeze(-1)).view(rows, columns)

    def map(self, change: Callable[[Tensor], Tensor]) -> Fields:
        """The same fields, each tensor changed by `change` (along the rows)."""

        def changed(part: Tensor | None) -> Tensor | None:
            return None if part is None else change(part)

        return Fields(
            format=self.format,
            codes=change(self.codes),
            scale=change(self.scale),
            low=changed(self.low),
            group_scales=changed(self.group_scales),
            group_lows=changed(self.group_lows),
        )


def parse(raw: Tensor, format: Format) -> Fields:
    """Take the bytes of whole rows apart.

    raw: uint8 [rows, blocks * format.nbytes], as they lie in the file. Any strides.
    """
    blocks = raw.reshape(raw.shape[0], -1, format.nbytes)
    return _PARSERS[format.name](blocks, format)


def _halves(raw: Tensor) -> Tensor:
    """float16 [rows, blocks] of the two bytes [rows, blocks, 2]."""
    return raw.contiguous().view(torch.float16).squeeze(-1)


def _nibbles(raw: Tensor, run: int) -> Tensor:
    """uint8 [rows, columns]: of every `run` bytes the low halves, then the high ones."""
    rows = raw.shape[0]
    runs = raw.reshape(rows, -1, 1, run)
    return torch.cat([runs & 15, runs >> 4], 2).view(rows, -1)


def _legacy(blocks: Tensor, format: Format) -> Fields:
    """Q4_0, Q4_1, Q5_0, Q5_1: scale, [minimum], [fifth bits], nibbles; one group a block."""
    at = 4 if format.has_low else 2
    low = _halves(blocks[..., 2:4]) if format.has_low else None
    codes = _nibbles(blocks[..., -16:], 16)
    if format.bits == 5:
        shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device)
        bits = (blocks[..., at : at + 4].unsqueeze(-1) >> shifts) & 1
        codes = codes | (bits.reshape(codes.shape) << 4)
    return Fields(format=format, codes=codes, scale=_halves(blocks[..., :2]), low=low)


def _q8_0(blocks: Tensor, format: Format) -> Fields:
    codes = (blocks[..., 2:] ^ 128).reshape(blocks.shape[0], -1)  # signed, so shifted by 128
    return Fields(format=format, codes=codes, scale=_halves(blocks[..., :2]))


def _q45_k(blocks: Tensor, format: Format) -> Fields:
    """Q4_K, Q5_K: scale, minimum's scale, eight 6-bit pairs in 12 bytes, [fifth bits], nibbles."""
    rows = blocks.shape[0]
    packed = blocks[..., 4:16]
    first, second, rest = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    group_scales = torch.cat([first & 63, (rest & 15) | ((first >> 6) << 4)], -1)
    group_lows = torch.cat([second & 63, (rest >> 4) | ((second >> 6) << 4)], -1)
    codes = _nibbles(blocks[..., -128:], 32)
    if format.bits == 5:
        shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device).view(8, 1)
        bits = (blocks[..., 16:48].unsqueeze(-2) >> shifts) & 1
        codes = codes | (bits.reshape(rows, -1) << 4)
    return Fields(
        format=format,
        codes=codes,
        scale=_halves(blocks[..., :2]),
        low=_halves(blocks[..., 2:4]),
        group_scales=group_scales.reshape(rows, -1),
        group_lows=group_lows.reshape(rows, -1),
    )


def _q6_k(blocks: Tensor, format: Format) -> Fields:
    """Low halves in 128 bytes, upper two bits in 64, sixteen signed group scales, the scale."""
    rows, count = blocks.shape[:2]
    low = blocks[..., :128].reshape(rows, count, 2, 1, 64)
    low = torch.cat([low & 15, low >> 4], -2).view(rows, count, 2, 4, 32)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device).view(4, 1)
    high = (blocks[..., 128:192].reshape(rows, count, 2, 1, 32) >> shifts) & 3
    group_scales = blocks[..., 192:208].reshape(rows, -1).view(torch.int8)
    return Fields(
        format=format,
        codes=(low | (high << 4)).reshape(rows, -1),
        scale=_halves(blocks[..., 208:]),
        group_scales=group_scales,
    )


_TABLE = (
    Format(name="Q4_0", ggml_type=2, block=32, nbytes=18, bits=4, group=32),
    Format(name="Q4_1", ggml_type=3, block=32, nbytes=20, bits=4, group=32),
    Format(name="Q5_0", ggml_type=6, block=32, nbytes=22, bits=5, group=32),
    Format(name="Q5_1", ggml_type=7, block=32, nbytes=24, bits=5, group=32),
    Format(name="Q8_0", ggml_type=8, block=32, nbytes=34, bits=8, group=32),
    Format(name="Q4_K", ggml_type=12, block=256, nbytes=144, bits=4, group=32),
    Format(name="Q5_K", ggml_type=13, block=256, nbytes=176, bits=5, group=32),
    Format(name="Q6_K", ggml_type=14, block=256, nbytes=210, bits=6, group=16),
)
_PARSERS: dict[str, Callable[[Tensor, Format], Fields]] = {
    **dict.fromkeys(("Q4_0", "Q4_1", "Q5_0", "Q5_1"), _legacy),
    **dict.fromkeys(("Q4_K", "Q5_K"), _q45_k),
    "Q8_0": _q8_0,
    "Q6_K": _q6_k,
}
FORMATS: dict[str, Format] = {format.name: format for format in _TABLE}
"""The formats by name."""


def format_of(ggml_type: int | str) -> Format | None:
    """The format of a GGML type's number or name; None for a type that is not among FORMATS."""
    if isinstance(ggml_type, str):
        return FORMATS.get(ggml_type.upper())
    return next((format for format in _TABLE if format.ggml_type == ggml_type), None)
