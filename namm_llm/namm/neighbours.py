"""Features of the tokens around a token: a value is of use only whole, so the tokens of one are
worth what the best of them is worth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def neighbours(
    column: Tensor, ages: Tensor, radius: int, missing: float | Tensor, span: int | None = None
) -> Tensor:
    """The numbers of the tokens 1 .. `radius` positions older, then 1 .. `radius` newer.

    column: `[..., N]`, one number a token, oldest first. ages: `[..., N]`, in tokens, all below
    `span`; without it the host has to ask a GPU for the largest. missing: stands for a token that
    is not stored. Returns `[..., N, 2 * radius]`.
    """
    if not column.shape[-1]:
        return column.new_empty(*column.shape, 2 * radius)
    span = int(ages.max()) + 1 if span is None else span
    slots = (span - 1 - ages).long().view(-1, column.shape[-1])
    rows, width = len(slots), span + 2 * radius
    # all rows on one line, each position at its slot, gaps filled with `missing`
    slots = (slots + width * torch.arange(rows, device=ages.device)[:, None]).flatten()
    line = column.new_empty(rows * width).fill_(missing)
    line.scatter_(0, slots + radius, column.flatten())
    # oldest first, the token itself in the middle
    around = line.unfold(0, 2 * radius + 1, 1).index_select(0, slots)
    ends = ((radius - 1, -1, -1), (radius + 1, 2 * radius + 1, 1))
    order = torch.cat([torch.arange(*end, device=ages.device) for end in ends])
    return around.index_select(1, order).view(*column.shape, 2 * radius)


def separated(ages: Tensor, lengths: Sequence[int], radius: int, span: int) -> tuple[Tensor, int]:
    """Ages of several heads moved so far apart that no token is within `radius` of another head's.

    ages: `[N]`, all below `span`, head after head. lengths: tokens of each head. Returns the moved
    ages `[N]` and the span that all of them are below.
    """
    step, last = span + radius, len(lengths) - 1
    parts = enumerate(torch.split(ages, list(lengths)))
    moved = torch.cat([part + step * (last - head) for head, part in parts])
    return moved, span + step * last
