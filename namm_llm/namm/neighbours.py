"""What stands around a token: a value is of use only whole, and the tokens of one are worth what the best of them is worth."""

import torch
from torch import Tensor


def neighbours(column: Tensor, ages: Tensor, reach: int, missing: float) -> Tensor:
    """The numbers of the tokens 1 .. `reach` places older, then of those 1 .. `reach` places newer.

    column: `[..., N]`, a number of each token, oldest first. ages: `[..., N]`, in tokens. A token that is not stored counts as `missing`.
    Returns `[..., N, 2 * reach]`.
    """
    if not column.shape[-1]:
        return column.new_empty(*column.shape, 2 * reach)
    places = (ages.max() - ages).long() + reach
    line = column.new_full((*column.shape[:-1], int(places.max()) + reach + 1), missing).scatter_(-1, places, column)
    distances = torch.arange(1, reach + 1, device=ages.device)
    beside = places[..., None] + torch.cat([-distances, distances])
    return line.gather(-1, beside.flatten(-2)).view(*column.shape, 2 * reach)
