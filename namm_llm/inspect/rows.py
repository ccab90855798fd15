"""An inspection as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from namm_llm.inspect.forgotten import forgotten_spans
from namm_llm.inspect.inspection import Inspection, Side

Row = dict[str, Any]


def rows_of(inspection: Inspection) -> list[Row]:
    """One row for each memory and part of it. part: `all`, `layer`, `head`, `kind` (of token) or
    `forgotten` (a stretch that is gone).

    tokens: how many. kept: share of their places (one in each layer and head) that hold them.
    anywhere: share of the tokens with a place. median_age: of what is kept, in tokens before the
    document's end. Forgotten stretches have `start`, `tokens` and `text`.
    """
    return [
        {"document": inspection.name, "model": inspection.model, "policy": side.policy, **row}
        for side in inspection.sides
        for row in _rows(inspection, side)
    ]


def _rows(inspection: Inspection, side: Side) -> Iterator[Row]:
    yield {
        "part": "all",
        **_figures(side.held),
        "nbytes": side.nbytes,
        "full_nbytes": side.full_nbytes,
    }
    for number, layer in zip(inspection.layers, side.held, strict=True):
        yield {"part": "layer", "layer": number, **_figures(layer[None])}
        for head, held in enumerate(layer, 1):
            yield {"part": "head", "layer": number, "head": head, **_figures(held[None, None])}
    for kind in sorted(set(inspection.kinds) - {""}):
        of_kind = torch.tensor([found == kind for found in inspection.kinds])
        yield {"part": "kind", "kind": kind, **_shares(side.held[:, :, of_kind])}
    for span in forgotten_spans(side.anywhere):
        yield {
            "part": "forgotten",
            "start": span.start,
            "tokens": len(span),
            "text": "".join(inspection.pieces[span.start : span.stop]),
        }


def _figures(held: Tensor) -> Row:
    return {**_shares(held), "median_age": median_age(held)}


def _shares(held: Tensor) -> Row:
    places = held.flatten(0, 1)
    return {
        "tokens": held.shape[2],
        "kept": float(places.float().mean()),
        "anywhere": float(places.any(0).float().mean()),
    }


def median_age(held: Tensor) -> int | None:
    """Tokens from a kept token to the newest one, the middle of all places of `[layers, heads,
    tokens]`; None if nothing is kept.
    """
    ages = held.shape[2] - 1 - held.nonzero()[:, 2]
    return int(ages.median()) if len(ages) else None
