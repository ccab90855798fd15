"""What stands around a token: a value is of use only whole, and the tokens of one are worth what
the best of them is worth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def neighbours(
    column: Tensor, ages: Tensor, reach: int, missing: float | Tensor, span: int | None = None
) -> Tensor:
    """The numbers of the tokens 1 .. `reach` places older, then of those 1 .. `reach` places newer.

    column: `[..., N]`, a number of each token, oldest first. ages: `[..., N]`, in tokens, all below
    `span`; without it the host has to ask a GPU for the largest. A token that is not stored counts
    as `missing`. Returns `[..., N, 2 * reach]`.
    """
    if not column.shape[-1]:
        return column.new_empty(*column.shape, 2 * reach)
    span = int(ages.max()) + 1 if span is None else span
    places = (span - 1 - ages).long().view(-1, column.shape[-1])
    rows, width = len(places), span + 2 * reach
    places = (
        places + width * torch.arange(rows, device=ages.device)[:, None]
    ).flatten()  # all rows on one line
    line = (
        column.new_empty(rows * width).fill_(missing).scatter_(0, places + reach, column.flatten())
    )
    around = line.unfold(0, 2 * reach + 1, 1).index_select(
        0, places
    )  # oldest first, the token itself in the middle
    ends = ((reach - 1, -1, -1), (reach + 1, 2 * reach + 1, 1))
    order = torch.cat([torch.arange(*end, device=ages.device) for end in ends])
    return around.index_select(1, order).view(*column.shape, 2 * reach)


def apart(ages: Tensor, lengths: Sequence[int], reach: int, span: int) -> tuple[Tensor, int]:
    """Ages `[N]`, all below `span`, of segments that lie one after the other, moved so far apart
    that no token is within `reach` of another segment's; and what all of them are below then.
    """
    step, last = span + reach, len(lengths) - 1
    moved = torch.cat(
        [part + step * (last - at) for at, part in enumerate(torch.split(ages, list(lengths)))]
    )
    return moved, span + step * last
