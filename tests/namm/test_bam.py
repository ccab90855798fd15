"""Flip and causal attention, against the definition with an N x N mask."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from namm_llm.namm.bam import BamWeights, bam
from namm_llm.namm.layout import parameter_shapes


def random_weights(seed: int = 0, features: int = 25, hidden: int = 32) -> BamWeights:
    generator = torch.Generator().manual_seed(seed)
    shapes = parameter_shapes(features, hidden)[:4]
    return BamWeights(*(0.2 * torch.randn(shape, generator=generator) for shape in shapes))


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x: Tensor, weights: BamWeights) -> Tensor:
    """[N, d] in float64, the mask written out: token i sees j >= i."""
    x, (qkv, qkv_bias, out, out_bias) = x.double(), (weight.double() for weight in weights)
    queries, keys, values = (x @ qkv + qkv_bias).chunk(3, dim=-1)
    logits = queries @ keys.T / queries.shape[-1] ** 0.5
    older = torch.ones(len(x), len(x), dtype=torch.bool).tril(-1)
    seen = logits.masked_fill(older, -torch.inf).softmax(-1) @ values
    residual, multiplicative = (seen @ out + out_bias).chunk(2, dim=-1)
    return x * (1 + multiplicative) + residual


@pytest.mark.parametrize("tokens", [1, 2, 63, 111, 1000])
def test_flip_is_the_masked_definition(tokens: int) -> None:
    x, weights = random_tokens(tokens, 25), random_weights(tokens)

    assert (bam(x, weights) - by_definition(x, weights)).abs().max() < 1e-5


def test_a_token_never_sees_an_older_one() -> None:
    x, weights = random_tokens(40, 25), random_weights()
    changed = x.clone()
    changed[:20] = 7.0

    before, after = bam(x, weights), bam(changed, weights)

    torch.testing.assert_close(after[20:], before[20:], rtol=0, atol=1e-6)
    assert (after[:20] - before[:20]).abs().min() > 0


def test_every_newer_token_is_seen() -> None:
    x, weights = random_tokens(40, 25), random_weights()
    changed = x.clone()
    changed[-1] += 5.0

    assert ((bam(changed, weights) - bam(x, weights)).abs().amax(-1) > 1e-4).all()


def test_leading_dimensions_are_independent_sequences() -> None:
    x, weights = random_tokens(2, 3, 63, 25), random_weights()

    together = bam(x, weights)

    for document in range(2):
        for head in range(3):
            alone = bam(x[document, head], weights)
            torch.testing.assert_close(together[document, head], alone, rtol=0, atol=1e-5)


def test_padding_in_front_changes_nothing() -> None:
    x, weights = random_tokens(50, 25), random_weights()
    padded = torch.cat([torch.full((30, 25), 1e4), x])

    torch.testing.assert_close(bam(padded, weights)[30:], bam(x, weights), rtol=0, atol=1e-5)


@pytest.mark.parametrize("hidden", [8, 20, 32])
def test_no_square_matrix_is_built(hidden: int) -> None:
    """torch refuses here when only the kernel that builds the N x N matrix would do."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        bam(random_tokens(111, 25), random_weights(hidden=hidden))


def test_no_tokens() -> None:
    assert bam(torch.zeros(2, 0, 25), random_weights()).shape == (2, 0, 25)
