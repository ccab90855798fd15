"""The order of a NAMM's parameters in their flat vector `theta` [P], the same as in the reference
implementation.

With d features and h hidden, P = (3dh + 3h) + (2hd + 2d) + (d + 1): 4172 for d = 25 and h = 32.
Matrices are [in, out]. Hidden 0 stands for a NAMM without attention: a linear score of d + 1
parameters. `units` of a hidden layer beside the linear score add u (d + 2) parameters at the end;
the published NAMM has none.
"""

import math

from namm_llm.errors import NammFileError

HIDDEN = 32


def parameter_shapes(features: int, hidden: int, units: int = 0) -> list[tuple[int, ...]]:
    """The fields of `BamWeights` in their order (none if hidden is 0), the weight and the bias of
    the score, then weights in, bias and weights out of the `units`, if there are any.
    """
    score: list[tuple[int, ...]] = [(features, 1), (1,)]
    if units:
        score += [(features, units), (units,), (units, 1)]
    return (
        score
        if hidden == 0
        else [
            (features, 3 * hidden),
            (3 * hidden,),
            (hidden, 2 * features),
            (2 * features,),
            *score,
        ]
    )


def parameter_count(features: int, hidden: int, units: int = 0) -> int:
    """P, the length of `theta`."""
    return sum(math.prod(shape) for shape in parameter_shapes(features, hidden, units))


def hidden_size(parameters: int, features: int, units: int = 0) -> int:
    """Inverse of `parameter_count`; NammFileError when no hidden size gives that many parameters."""
    if parameters == parameter_count(features, 0, units):
        return 0
    # from 1 on the count is a straight line in the hidden size
    step = parameter_count(features, 2) - parameter_count(features, 1)
    hidden, rest = divmod(parameters - parameter_count(features, 1, units) + step, step)
    if rest or hidden < 1:
        expected = parameter_count(features, HIDDEN, units)
        raise NammFileError(
            f"wrong number of parameters: got {parameters}, expected {expected} ({features} features, hidden {HIDDEN})."
        )
    return hidden
