"""An inspection as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from namm_llm.inspect.entries import forgotten_spans
from namm_llm.inspect.inspection import Inspection, Side

Row = dict[str, Any]


def rows_of(inspection: Inspection) -> list[Row]:
    """One row for each memory and part of it.

    part: `all`, `layer`, `head`, `kind` (of token) or `forgotten` (a span without any entry).
    tokens: how many. kept: share of their entries that are held. anywhere: share of the tokens with
    an entry. median_age: of what is kept, in tokens before the document's end. Forgotten spans have
    `start`, `tokens` and `text`.
    """
    return [
        {"document": inspection.name, "model": inspection.model, "policy": side.policy, **row}
        for side in inspection.sides
        for row in _rows(inspection, side)
    ]


def median_age(held: Tensor) -> int | None:
    """Tokens from a kept token to the newest one, the median of all entries held in bool `[layers,
    heads, tokens]`; None if there is none.
    """
    ages = held.shape[2] - 1 - held.nonzero()[:, 2]
    return int(ages.median()) if len(ages) else None


def kept_by_kind(inspection: Inspection, side: Side) -> dict[str, Tensor]:
    """The entries of each kind's tokens, kinds in order: bool `[layers, heads, tokens]`."""
    of_kind = {
        kind: torch.tensor([own == kind for own in inspection.kinds])
        for kind in sorted(set(inspection.kinds) - {""})
    }
    return {kind: side.held[:, :, tokens] for kind, tokens in of_kind.items()}


def _rows(inspection: Inspection, side: Side) -> Iterator[Row]:
    nbytes = {"nbytes": side.nbytes, "full_nbytes": side.full_nbytes}
    yield {"part": "all", **_figures(side.held), **nbytes}
    for number, layer in zip(inspection.layers, side.held, strict=True):
        yield {"part": "layer", "layer": number, **_figures(layer[None])}
        for head, held in enumerate(layer, 1):
            yield {"part": "head", "layer": number, "head": head, **_figures(held[None, None])}
    for kind, held in kept_by_kind(inspection, side).items():
        yield {"part": "kind", "kind": kind, **_shares(held)}
    for span in forgotten_spans(side.anywhere):
        text = "".join(inspection.pieces[span.start : span.stop])
        yield {"part": "forgotten", "start": span.start, "tokens": len(span), "text": text}


def _figures(held: Tensor) -> Row:
    return {**_shares(held), "median_age": median_age(held)}


def _shares(held: Tensor) -> Row:
    entries = held.flatten(0, 1)
    return {
        "tokens": held.shape[2],
        "kept": float(entries.float().mean()),
        "anywhere": float(entries.any(0).float().mean()),
    }
