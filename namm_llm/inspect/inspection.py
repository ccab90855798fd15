"""`Inspection`: the tokens of a document, and which entries of each the memories of it hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from namm_llm.document import Document
from namm_llm.errors import DocumentError
from namm_llm.inspect.entries import kept_entries
from namm_llm.inspect.kinds import character_kinds, is_code, token_kind
from namm_llm.runner import Runner


@dataclass(frozen=True)
class Side:
    """What one memory kept of a document."""

    policy: str
    """The settings of its cache in one line."""
    held: Tensor
    """Its entries of the document's own tokens: bool `[layers, heads, tokens]`."""
    nbytes: int
    """As of `CacheStats`."""
    full_nbytes: int
    """As of `CacheStats`."""

    @property
    def shares(self) -> Tensor:
        """Share of each token's entries that are held: float `[tokens]`."""
        return self.held.flatten(0, 1).float().mean(0)

    @property
    def anywhere(self) -> Tensor:
        """Whether each token has an entry: bool `[tokens]`."""
        return self.held.flatten(0, 1).any(0)


@dataclass(frozen=True)
class Inspection:
    """A document, and what one or more memories kept of it."""

    name: str
    """The document's."""
    model: str
    """The name that the model was loaded by."""
    pieces: list[str]
    """The text of each token, together the document. Empty for a token that only goes on with a
    character which the token before it began."""
    kinds: list[str]
    """The kind of each token; "" where it cannot be told."""
    is_code: bool
    layers: list[int]
    """Numbers of the layers that evict, from 1 on."""
    sides: list[Side]
    """One for each memory."""


def inspect_memories(
    runner: Runner, name: str, text: str, memories: Sequence[Document]
) -> Inspection:
    """Look at memories of one text.

    name: the document's, by whose suffix code is known. Raises DocumentError for a memory of
    another text, or of a model without a layer that evicts.
    """
    if not memories[0].cache.managed:
        raise DocumentError(
            f"{runner.model_id} has only layers with a sliding window, which hold the newest "
            "tokens of any text: there is nothing to show."
        )
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
    """First character and the one behind the last of each of a document's own tokens; together they
    are the whole text.
    """
    starts = [start for start in runner.document_starts(text) if start >= 0]
    borders = [len(text)]
    for start, before in zip(reversed(starts), [*reversed(starts[:-1]), -1], strict=True):
        # a token that only goes on with a character has no text
        borders.append(start if start > before else borders[-1])
    return list(pairwise([0, *reversed(borders[:-1])]))


def _side(memory: Document, starts: list[int], name: str) -> Side:
    """starts: of all tokens that were read, -1 for those before the document."""
    held, stats = kept_entries(memory.cache), memory.cache.stats()
    if held.shape[2] != len(starts):
        raise DocumentError(
            f"the memory has {held.shape[2]} tokens, but {name} has {len(starts)}; "
            "is it a memory of this document?."
        )
    own = sum(start >= 0 for start in starts)
    return Side(stats.policy, held[:, :, len(starts) - own :], stats.nbytes, stats.full_nbytes)
