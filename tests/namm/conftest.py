"""NAMMs with numbers in them."""

from collections.abc import Callable

import pytest
import torch

from namm_llm.namm import Namm


@pytest.fixture
def make_namm() -> Callable[..., Namm]:
    """A random NAMM of a seed: parameters of the size that evolution starts with, plausible
    statistics.
    """

    def make(seed: int = 0, attention_dim: int = 32) -> Namm:
        generator = torch.Generator().manual_seed(seed)
        theta = 0.3 * torch.randn(len(Namm.zeros(attention_dim).vector), generator=generator)
        mean, variance = torch.rand(2, 17, generator=generator) * 0.01
        return Namm.from_vector(theta, mean, variance)

    return make
