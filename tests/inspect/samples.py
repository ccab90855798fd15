"""Inspections without a model: any text, any pattern of what is held."""

from __future__ import annotations

import torch

from namm_llm.inspect import Inspection, Side, character_kinds, token_kind

LAYERS, HEADS = 3, 2


def inspection_of(
    pieces: list[str],
    *,
    shares: tuple[float, ...] = (0.5,),
    layers: int = LAYERS,
    heads: int = HEADS,
    name: str = "note.txt",
) -> Inspection:
    """One side for each share of entries that are held at random; nothing holds tokens 4 to 8, and
    everything token 2.
    """
    text = "".join(pieces)
    kinds = character_kinds(text, name)
    spans, at = [], 0
    for piece in pieces:
        spans.append((at, at + len(piece)))
        at += len(piece)
    sides = []
    for number, share in enumerate(shares):
        held = (
            torch.rand(layers, heads, len(pieces), generator=torch.Generator().manual_seed(number))
            < share
        )
        held[:, :, 4:9] = False
        held[:, :, 2] = True
        sides.append(Side(f"policy {number}", held, 1_000_000, 4_000_000))
    found = [token_kind(text, kinds, start, stop) for start, stop in spans]
    return Inspection(
        name, "a model", pieces, found, name.endswith(".py"), list(range(1, layers + 1)), sides
    )


def long_pieces(tokens: int) -> list[str]:
    """Prose in lines of some ten words."""
    words = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".\n")
    return [words[number % len(words)] for number in range(tokens)]
