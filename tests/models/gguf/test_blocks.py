"""Every block format is unpacked as the `gguf` package's reference does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from namm_llm.models.gguf.blocks import (
    BLOCK_FORMATS,
    TYPE_NAMES,
    BlockFormat,
    dequantize,
    has_finite_scales,
)

gguf = pytest.importorskip("gguf", reason="the package gguf, the reference, is not installed")
ROWS, BLOCKS = 37, 3


def random_rows(layout: BlockFormat) -> torch.Tensor:
    """Rows of random bits with finite scales."""
    draw = np.random.default_rng(len(layout.name))
    if layout.dtype is not None:
        kind = gguf.GGMLQuantizationType[layout.name]
        values = draw.normal(size=(ROWS, BLOCKS)).astype(np.float32)
        return torch.from_numpy(gguf.quantize(values, kind).view(np.uint8).reshape(ROWS, -1).copy())
    blocks = draw.integers(0, 256, (ROWS * BLOCKS, layout.block_bytes), dtype=np.uint8)
    for at in layout.scales:
        scales = draw.normal(size=(len(blocks), 1)).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return torch.from_numpy(blocks.reshape(ROWS, -1))


@pytest.mark.parametrize("number", BLOCK_FORMATS)
def test_weights_equal_the_reference(number: int) -> None:
    layout = BLOCK_FORMATS[number]
    kind = gguf.GGMLQuantizationType(number)
    assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (
        layout.name,
        (layout.block_size, layout.block_bytes),
    )
    rows = random_rows(layout)
    wanted = gguf.dequantize(rows.numpy(), kind)
    assert torch.equal(dequantize(rows, layout.name), torch.from_numpy(wanted.copy()))


@pytest.mark.parametrize("name", ["Q4_1", "Q6_K"])
def test_large_tensors_are_unpacked_in_parts_without_a_seam(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = next(layout for layout in BLOCK_FORMATS.values() if layout.name == name)
    rows = random_rows(layout)
    whole = dequantize(rows, name)
    monkeypatch.setattr("namm_llm.models.gguf.blocks._CHUNK_WEIGHTS", 5 * layout.block_size)
    assert torch.equal(dequantize(rows, name), whole)


@pytest.mark.parametrize("number", BLOCK_FORMATS)
def test_one_infinite_scale_is_found(number: int) -> None:
    layout = BLOCK_FORMATS[number]
    rows = random_rows(layout)
    assert has_finite_scales(rows, layout.name)
    last = rows[-1, -layout.block_bytes :]
    if layout.dtype is not None:
        last[:] = torch.tensor([float("nan")], dtype=layout.dtype).view(torch.uint8)
    else:
        last[layout.scales[-1] + 1] = 0x7C  # infinity
        last[layout.scales[-1]] = 0
    assert not has_finite_scales(rows, layout.name)


def test_types_of_ggml_are_known_by_their_names() -> None:
    for number, name in TYPE_NAMES.items():
        assert gguf.GGMLQuantizationType(number).name == name
        assert number not in BLOCK_FORMATS
