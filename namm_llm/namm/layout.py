"""The order of a NAMM's parameters in their flat vector `theta` [P], the same as in the reference
implementation.

With d features and h = attention_dim, P = (3dh + 3h) + (2hd + 2d) + (d + 1): 4172 for d = 25 and
h = 32. Matrices are [in, out]. h = 0 is a NAMM without attention: a linear score of d + 1
parameters. A hidden layer of u = mlp_hidden units beside the linear score adds u (d + 2) parameters
at the end, and a factor and a summand for each of H heads add 2 H; the published NAMM has neither.
"""

import math

from namm_llm.errors import NammFileError

ATTENTION_DIM = 32


def parameter_shapes(
    features: int, attention_dim: int, mlp_hidden: int = 0, heads: int = 0
) -> list[tuple[int, ...]]:
    """The fields of `BamWeights` in their order (none if attention_dim is 0), the weight and the
    bias of the score, then weights in, bias and weights out of the hidden layer, if there is one,
    then factors (0 for no change) and summands of the heads, if there are any.
    """
    score: list[tuple[int, ...]] = [(features, 1), (1,)]
    if mlp_hidden:
        score += [(features, mlp_hidden), (mlp_hidden,), (mlp_hidden, 1)]
    if heads:
        score += [(heads,), (heads,)]
    if attention_dim == 0:
        return score
    qkv, out = 3 * attention_dim, 2 * features
    return [(features, qkv), (qkv,), (attention_dim, out), (out,), *score]


def parameter_count(features: int, attention_dim: int, mlp_hidden: int = 0, heads: int = 0) -> int:
    """P, the length of `theta`."""
    return sum(map(math.prod, parameter_shapes(features, attention_dim, mlp_hidden, heads)))


def attention_dim_of(parameters: int, features: int, mlp_hidden: int = 0, heads: int = 0) -> int:
    """Inverse of `parameter_count`. Raises NammFileError when no size gives that many."""
    if parameters == parameter_count(features, 0, mlp_hidden, heads):
        return 0
    # from 1 on the count is a straight line in the attention's size
    step = parameter_count(features, 2) - parameter_count(features, 1)
    size, rest = divmod(parameters - parameter_count(features, 1, mlp_hidden, heads) + step, step)
    if rest or size < 1:
        expected = parameter_count(features, ATTENTION_DIM, mlp_hidden, heads)
        raise NammFileError(
            f"wrong number of parameters: got {parameters}, expected {expected} "
            f"({features} features, attention_dim {ATTENTION_DIM})."
        )
    return size
