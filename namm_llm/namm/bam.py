"""Backward attention memory (BAM): each token attends to itself and to the newer tokens of its KV
head.

Tokens stand in the order of time, oldest first: x [..., N, d], for any leading dimensions. Memory
is O(N), time O(N^2). Knows nothing about what the d features mean.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention


class BamWeights(NamedTuple):
    """Weights of a BAM with d features and attention of size h, stored [in, out] as in the
    reference: the transpose of `torch.nn.Linear.weight`.
    """

    qkv: Tensor
    """`[d, 3h]`: queries | keys | values."""
    qkv_bias: Tensor
    """`[3h]`."""
    out: Tensor
    """`[h, 2d]`: residual | multiplicative."""
    out_bias: Tensor
    """`[2d]`."""


def bam(x: Tensor, weights: BamWeights) -> Tensor:
    """`x * (1 + m) + r`, where [r | m] is one head of counter-causal attention over x (arXiv
    2410.13166, section 3).

    x: [..., N, d]. Returns [..., N, d]. Sequences of unequal length may be padded in front, with
    any finite numbers: no token sees an older one.
    """
    # from the newest token to the oldest, "itself and newer" is the causal mask, which needs no
    # N x N matrix
    queries, keys, values = linear(x.flip(-2), weights.qkv.T, weights.qkv_bias).chunk(3, dim=-1)
    seen = _causal_attention(queries, keys, values).flip(-2)
    residual, multiplicative = linear(seen, weights.out.T, weights.out_bias).chunk(2, dim=-1)
    return x * (1.0 + multiplicative) + residual


def _causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[..., N, h] each -> [..., N, h]."""
    # sequences x one head x N x h: torch's fused kernels take four dimensions, with three it builds
    # the N x N matrix
    shape = (queries.shape[:-2].numel(), 1, *queries.shape[-2:])
    attended = scaled_dot_product_attention(
        queries.reshape(shape), keys.reshape(shape), values.reshape(shape), is_causal=True
    )
    return attended.view(queries.shape)
