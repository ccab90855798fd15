"""A training example: token ids, and what of them is learned."""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD_LOSS, VALUE_LOSS = 1.0, 0.5


@dataclass
class Example:
    """Token ids and the weight of each one's loss."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    """Indices of the tokens that decide an answer."""
    cuts: list[int] = field(default_factory=list)
    """Indices at which positions may jump."""

    def add(self, ids: list[int], loss: float = 0.0) -> None:
        """Add tokens of one weight."""
        self.ids += ids
        self.weights += [loss] * len(ids)

    def head(self, ids: list[int], loss: float = VALUE_LOSS) -> None:
        """Add a value: its first token is the look-up."""
        self.heads.append(len(self.ids))
        self.add(ids[:1], HEAD_LOSS)
        self.add(ids[1:], loss)

    def cut(self) -> None:
        """Let positions jump here."""
        self.cuts.append(len(self.ids))

    def extend(self, other: Example) -> None:
        """Add all of the other."""
        offset = len(self.ids)
        self.heads += [offset + i for i in other.heads]
        self.cuts += [offset + i for i in other.cuts]
        self.ids += other.ids
        self.weights += other.weights
