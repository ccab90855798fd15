"""The longest stretches of a document that are gone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` (not included) of a document."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def forgotten_spans(held: Tensor, most: int = 20) -> list[Span]:
    """The longest runs of tokens that nothing holds, longest first, of equal ones the earlier
    first. held: booleans `[tokens]`.
    """
    gone = torch.cat([torch.zeros(1), (~held).float(), torch.zeros(1)]).diff()
    starts, stops = (
        gone.eq(1).nonzero().flatten().tolist(),
        gone.eq(-1).nonzero().flatten().tolist(),
    )
    spans = [Span(start, stop) for start, stop in zip(starts, stops, strict=True)]
    return sorted(spans, key=lambda span: (-len(span), span.start))[:most]
