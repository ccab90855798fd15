"""`Inspection`: a document's tokens, and for one or more memories of it which layers and heads
still hold each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from namm_llm.document import Document
from namm_llm.errors import DocumentError
from namm_llm.inspect.kept import kept_entries
from namm_llm.inspect.kinds import character_kinds, is_code, token_kind
from namm_llm.runner import Runner


@dataclass(frozen=True)
class Side:
    """What one memory kept. policy: its settings in one line. held: booleans `[layers, heads,
    tokens]`, of the document's own tokens. nbytes, full_nbytes: as of `CacheStats`.
    """

    policy: str
    held: Tensor
    nbytes: int
    full_nbytes: int

    @property
    def shares(self) -> Tensor:
        """Share of the places that still hold each token: `[tokens]`."""
        return self.held.flatten(0, 1).float().mean(0)

    @property
    def anywhere(self) -> Tensor:
        """Whether any place still holds each token: `[tokens]`."""
        return self.held.flatten(0, 1).any(0)


@dataclass(frozen=True)
class Inspection:
    """name: the document's. pieces: the text of each token, all of them together the document;
    empty for one that only goes on with a character which the token before it began. kinds: of each
    token. layers: numbers of the layers that evict, from 1 on.
    """

    name: str
    model: str
    pieces: list[str]
    kinds: list[str]
    is_code: bool
    layers: list[int]
    sides: list[Side]


def inspect_memories(
    runner: Runner, name: str, text: str, memories: Sequence[Document]
) -> Inspection:
    """Look at memories of one text. name: the document's, by whose suffix code is known.
    DocumentError if a memory is of another text.
    """
    spans = token_spans(runner, text)
    kinds = character_kinds(text, name)
    cache = memories[0].cache
    return Inspection(
        name=name,
        model=runner.model_id,
        pieces=[text[start:stop] for start, stop in spans],
        kinds=[token_kind(text, kinds, start, stop) for start, stop in spans],
        is_code=is_code(name),
        layers=[number for number, layer in enumerate(cache.layers, 1) if layer in cache.managed],
        sides=[_side(memory, runner.document_starts(text), name) for memory in memories],
    )


def token_spans(runner: Runner, text: str) -> list[tuple[int, int]]:
    """First character and the one behind the last, for each of a document's own tokens; together
    they are the whole text.
    """
    starts = [start for start in runner.document_starts(text) if start >= 0]
    borders = [len(text)]
    for start, before in zip(reversed(starts), [*reversed(starts[:-1]), -1], strict=True):
        borders.append(
            start if start > before else borders[-1]
        )  # a token that only goes on with a character has no text
    return list(pairwise([0, *reversed(borders[:-1])]))


def _side(memory: Document, starts: list[int], name: str) -> Side:
    held, stats = kept_entries(memory.cache), memory.cache.stats()
    if held.shape[2] != len(starts):
        raise DocumentError(
            f"the memory has {held.shape[2]} tokens, but {name} has {len(starts)}; is it a memory of this document?"
        )
    own = sum(start >= 0 for start in starts)
    return Side(stats.policy, held[:, :, len(starts) - own :], stats.nbytes, stats.full_nbytes)
