"""What stands around a token: a value is of use only whole, and the tokens of one are worth what the best of them is worth."""

import torch
from torch import Tensor


def neighbours(column: Tensor, ages: Tensor, reach: int, missing: float) -> Tensor:
    """The numbers of the tokens 1 .. `reach` places older, then of those 1 .. `reach` places newer.

    column: `[..., N]`, a number of each token, oldest first. ages: `[..., N]`, in tokens. A token that is not stored counts as `missing`.
    Returns `[..., N, 2 * reach]`.
    """
    count = column.shape[-1]
    around = column.new_full((*column.shape, 2 * reach), missing)
    for distance in range(1, reach + 1):
        for at in range(1, min(distance, count - 1) + 1):  # a gap makes a neighbour in place `distance` one of rank `at`
            older, newer = slice(None, count - at), slice(at, None)
            beside = ages[..., older] - ages[..., newer] == distance
            into_newer, into_older = around[..., newer, distance - 1], around[..., older, reach + distance - 1]
            into_newer.copy_(torch.where(beside, column[..., older], into_newer))
            into_older.copy_(torch.where(beside, column[..., newer], into_older))
    return around
