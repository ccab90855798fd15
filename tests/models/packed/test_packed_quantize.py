"""Float weights in 4 and 8 bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from namm_llm.models.packed import Backend, from_linear
from namm_llm.models.packed.formats import FORMATS
from namm_llm.models.packed.quantize import quantise
from tests.models.packed.conftest import distance


@pytest.mark.parametrize(("name", "limit"), [("Q8_0", 0.006), ("Q4_1", 0.078)])
def test_errors_of_normal_weights_are_small(name: str, limit: float) -> None:
    weights = torch.randn(64, 1024)
    assert distance(quantise(weights, FORMATS[name]).values(), weights) < limit


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_four_bits_beat_the_plain_range(scale: float) -> None:
    weights = scale * torch.randn(64, 1024)
    groups = weights.view(64, -1, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / 15
    plain = (((groups - low) / step).round() * step + low).view(64, 1024)
    found = quantise(weights, FORMATS["Q4_1"]).values()
    assert distance(found, weights) < 0.99 * distance(plain, weights)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_1"])
def test_constant_groups_and_zeros_are_kept(name: str) -> None:
    weights = torch.cat([torch.zeros(1, 32), torch.full((1, 32), 0.5)])
    found = quantise(weights, FORMATS[name]).values()
    assert torch.equal(found[0], weights[0])
    assert torch.allclose(found[1], weights[1], rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_map_is_quantised(each_backend: Backend, bits: int, dtype: torch.dtype) -> None:
    linear = nn.Linear(96, 40).to(dtype)
    packed = from_linear(linear, bits)  # type: ignore[arg-type]
    assert packed is not None
    x = torch.randn(5, 96).to(dtype)
    wanted = linear(x).detach().float()
    assert distance(packed(x).detach(), wanted) < (0.1 if bits == 4 else 0.02)


def test_widths_that_groups_do_not_divide_are_left(each_backend: Backend) -> None:
    assert from_linear(nn.Linear(48, 64), 4) is None
