"""A training example: token ids, what of them is learned, and hints at how."""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD_LOSS, VALUE_LOSS = 1.0, 0.5
Pair = tuple[int, int]
NOWHERE = 0
"""Where to look if there is nothing to find: the first token of all, as heads do that rest."""


@dataclass
class Example:
    """Token ids and the weight of each one's loss. `heads` are the tokens that decide an answer,
    `cuts` the places where positions may jump, `sites` where the names of a document's records
    begin and end (their first and last token), in order.

    Hints, both by index: `before` is where the name of the record before of the same kind begins
    and ends, which should be known there beside the next token; `sources` is where to look for the
    next token.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    sites: list[Pair] = field(default_factory=list)
    before: dict[int, Pair] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)

    def add(self, ids: list[int], loss: float = 0.0) -> None:
        self.ids += ids
        self.weights += [loss] * len(ids)

    def head(self, ids: list[int], loss: float = VALUE_LOSS) -> None:
        """Adds a value: its first token is the look-up."""
        self.heads.append(len(self.ids))
        self.add(ids[:1], HEAD_LOSS)
        self.add(ids[1:], loss)

    def cut(self) -> None:
        self.cuts.append(len(self.ids))

    def extend(self, other: Example) -> None:
        """Adds all of the other but its hints."""
        offset = len(self.ids)
        self.heads += [offset + i for i in other.heads]
        self.cuts += [offset + i for i in other.cuts]
        self.sites += [(offset + first, offset + last) for first, last in other.sites]
        self.ids += other.ids
        self.weights += other.weights

    def tell_before(self, kinds: list[str]) -> None:
        """At each of the sites, whose records are of `kinds`: the name before; NOWHERE at the first
        of a kind.
        """
        newest: dict[str, Pair] = {}
        for (first, last), kind in zip(self.sites, kinds, strict=True):
            self.before[first] = newest.get(kind, (NOWHERE, NOWHERE))
            newest[kind] = first, last
