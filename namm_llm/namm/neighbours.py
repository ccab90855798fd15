"""What stands around a token: a value is of use only whole, and the tokens of one are worth what the best of them is worth."""

from collections.abc import Sequence

import torch
from torch import Tensor


def neighbours(column: Tensor, ages: Tensor, reach: int, missing: float) -> Tensor:
    """The numbers of the tokens 1 .. `reach` places older, then of those 1 .. `reach` places newer.

    column: `[..., N]`, a number of each token, oldest first. ages: `[..., N]`, in tokens. A token that is not stored counts as `missing`.
    Returns `[..., N, 2 * reach]`.
    """
    if not column.shape[-1]:
        return column.new_empty(*column.shape, 2 * reach)
    places = (ages.max() - ages).long().view(-1, column.shape[-1])
    width = int(places.max()) + 1 + 2 * reach
    places = (places + width * torch.arange(len(places), device=ages.device)[:, None]).flatten()  # all rows on one line
    line = column.new_full((int(places.max()) + 1 + 2 * reach,), missing).scatter_(0, places + reach, column.flatten())
    around = line.unfold(0, 2 * reach + 1, 1).index_select(0, places)  # oldest first, the token itself in the middle
    order = [*range(reach - 1, -1, -1), *range(reach + 1, 2 * reach + 1)]
    return around.index_select(1, torch.tensor(order, device=ages.device)).view(*column.shape, 2 * reach)


def apart(ages: Tensor, lengths: Sequence[int], reach: int) -> Tensor:
    """Ages `[N]` of segments that lie one after the other, moved so far apart that no token is within `reach` of another segment's."""
    if not len(ages):
        return ages
    step = int(ages.max()) + 1 + reach
    counts = torch.tensor(lengths, device=ages.device)
    return ages + step * torch.arange(len(lengths) - 1, -1, -1, device=ages.device).repeat_interleave(counts, output_size=len(ages))
