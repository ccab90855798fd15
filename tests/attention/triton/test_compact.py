"""CacheConfig in one pass: the kernel against the definition."""

from __future__ import annotations

import pytest
import torch

from namm_llm.tokens import HeadTokens, RaggedTokens
from tests.attention.triton.conftest import draw, matrix

kernels = pytest.importorskip("namm_llm.attention.triton.compact")


def make(
    length: int, size: int, width: int, dtype: torch.dtype, device: torch.device, seed: int
) -> HeadTokens:
    keys, values = (draw(length, size, device=device, dtype=dtype, seed=seed + at) for at in (0, 1))
    state = draw(length, width, device=device, dtype=torch.float16, seed=seed + 2)
    return HeadTokens(
        keys, values, torch.arange(length, dtype=torch.int32, device=device) * 7, state
    )


@matrix
def test_gather(length, rows, size, dtype, device):
    width = {1: 0, 4: 1, 8: 17}[rows]
    segments = [
        make(n, size, width, dtype, device, seed)
        for seed, n in enumerate((length, 0, length + 5, 3))
    ]
    if rows == 4:
        segments = [segment.quantised() for segment in segments]
    chance = torch.rand(length + 5, generator=torch.Generator().manual_seed(9)).to(device)
    some = (chance < 0.4).nonzero()[:, 0]
    keep = [None, None, some, torch.zeros(0, dtype=torch.int64, device=device)]
    found, expected = kernels.gather(segments, keep), RaggedTokens.gather(segments, keep)
    assert found.lengths == expected.lengths == (length, 0, len(some), 0)
    for name, column in expected.columns().items():
        assert torch.equal(found.columns()[name], column), name
