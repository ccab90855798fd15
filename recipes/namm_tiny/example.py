"""A training example: token ids, what of them is learned, and hints at how."""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD_LOSS, VALUE_LOSS = 1.0, 0.5


@dataclass
class Example:
    """Token ids and the weight of each one's loss. `heads` are the tokens that decide an answer,
    `cuts` the places where positions may jump, `sites` the first tokens of the names of a document's records, in order.

    Hints, both by index: `before` is what should be known there beside the next token, the first token of the name that
    the record before of the same kind has; `sources` is where to look for the next token.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    sites: list[int] = field(default_factory=list)
    before: dict[int, int] = field(default_factory=dict)
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
        offset = len(self.ids)
        self.heads += [offset + i for i in other.heads]
        self.cuts += [offset + i for i in other.cuts]
        self.sites += [offset + i for i in other.sites]
        self.before |= {offset + i: token for i, token in other.before.items()}
        self.ids += other.ids
        self.weights += other.weights

    def tell_before(self, kinds: list[str], none: int) -> None:
        """At each of the sites, whose records are of `kinds`: the name before; `none` at the first of a kind."""
        last: dict[str, int] = {}
        for site, kind in zip(self.sites, kinds, strict=True):
            self.before[site] = last.get(kind, none)
            last[kind] = self.ids[site]
