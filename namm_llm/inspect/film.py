"""`FilmInspection`: the frames of a film, and how much of each the memories of it hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from namm_llm.document import Document
from namm_llm.errors import DocumentError
from namm_llm.inspect.entries import Span, kept_entries
from namm_llm.inspect.inspection import Side
from namm_llm.models.vision.parts import MARK
from namm_llm.models.vision.picture import Picture
from namm_llm.runner import Runner


@dataclass(frozen=True)
class FilmInspection:
    """A film, and what one or more memories kept of it."""

    name: str
    """The film's."""
    model: str
    """The name that the model was loaded by."""
    frames: list[Picture]
    spans: list[Span]
    """The tokens of each frame, those that the model wants around a picture included."""
    layers: list[int]
    """Numbers of the layers that evict, from 1 on."""
    sides: list[Side]
    """One for each memory; their tokens are all that were read."""

    def shares(self, side: Side) -> Tensor:
        """Share of each frame's entries that are held in each layer: `[layers, frames]`."""
        layers = side.held.float().mean(1)
        own = [layers[:, span.start : span.stop].mean(1) for span in self.spans]
        return layers.new_tensor([each.tolist() for each in own]).T

    def rows(self) -> list[dict[str, Any]]:
        """One row for each memory and frame. kept: share of the frame's entries that are held."""
        head = {"document": self.name, "model": self.model}
        return [
            {
                **head,
                "policy": side.policy,
                "part": "frame",
                "frame": number,
                "tokens": len(span),
                "kept": float(kept),
            }
            for side in self.sides
            for number, (span, kept) in enumerate(
                zip(self.spans, self.shares(side).mean(0), strict=True), 1
            )
        ]


def inspect_film(
    runner: Runner, name: str, text: str, pictures: Sequence[Picture], memories: Sequence[Document]
) -> FilmInspection:
    """Look at memories of one film.

    text: the marks of its frames, and what stands between. Raises DocumentError for a memory of
    another film.
    """
    session = runner.session
    held = session.pictures.encode(pictures)
    ids = session.format.document(text)
    by_mark = {each.mark: each for each in held}
    shown = {each.sha256: each for each in pictures}
    frames, spans, start = list[Picture](), list[Span](), 0
    for mark in MARK.finditer(text):
        own = by_mark[mark[0]].ids
        # what stands between frames is looked past
        start = next(at for at in range(start, len(ids)) if ids[at : at + len(own)] == own)
        frames.append(shown[mark[1]])
        spans.append(Span(start, start + len(own)))
        start += len(own)
    sides = [_side(memory, len(ids), name) for memory in memories]
    cache = memories[0].cache
    layers = [number for number, layer in enumerate(cache.layers, 1) if layer in cache.managed]
    return FilmInspection(name, runner.model_id, frames, spans, layers, sides)


def _side(memory: Document, count: int, name: str) -> Side:
    held, stats = kept_entries(memory.cache), memory.cache.stats()
    if held.shape[2] != count:
        raise DocumentError(
            f"the memory has {held.shape[2]} tokens, but {name} has {count}; give the film that it "
            "was read from."
        )
    return Side(stats.policy, held, stats.nbytes, stats.full_nbytes)
