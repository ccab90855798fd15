"""The caches of the last prompts, so that what a new prompt has in common with one of them is not
computed again.

An evicting cache cannot be cut back to an earlier token, so forks are kept from some tokens of a
prompt on: near its end, where a question follows a document, and where an earlier prompt went
another way. Forks share what is retained. Used by the worker's thread alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from namm_llm.cache import ManagedCache
from namm_llm.engine.forward import tokens_seen

# tokens before a prompt's end at which forks are kept: a question of up to 512 tokens is replaced
# by reading at most four times as many as it has (or 32); the last is for the same prompt again,
# of which one token must be left to read
_FROM_END = (512, 128, 32, 1)
_WORTH = 32  # tokens that another fork must save


@dataclass(frozen=True, eq=False)
class _Kept:
    """The caches of one prompt."""

    owner: str
    """Who alone may go on from them."""
    ids: list[int]
    caches: dict[int, ManagedCache]
    """By the number of tokens of `ids` that went through each."""


class PrefixStore:
    """The caches of at most `count` prompts, the least recently used forgotten first; a count of 0
    keeps none.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[_Kept] = []

    @property
    def is_on(self) -> bool:
        """Whether anything is ever kept."""
        return self._count > 0

    def continue_from(self, ids: list[int], owner: str = "") -> tuple[ManagedCache, int] | None:
        """A fork of the longest kept cache with which `ids` begin, and its tokens; at least one
        token is left to read.
        """
        best: tuple[int, _Kept] | None = None
        for kept in self._of(owner):
            common = min(_common(kept.ids, ids), len(ids) - 1)
            longest = max((length for length in kept.caches if length <= common), default=0)
            if longest and (best is None or longest > best[0]):
                best = longest, kept
        if best is None:
            return None
        length, kept = best
        self._kept.remove(kept)
        self._kept.append(kept)
        return kept.caches[length].fork(), length

    def borders(self, ids: list[int], reused: int, owner: str = "") -> list[int]:
        """Where to keep forks while `ids` are read, of which `reused` need not be: ascending, all
        between `reused` and the end.
        """
        ends = {len(ids) - distance for distance in _FROM_END}
        partings = {_common(kept.ids, ids) for kept in self._of(owner)}
        found = {at for at in ends if at > reused} | {
            at for at in partings if at >= reused + _WORTH
        }
        return sorted(at for at in found if at < len(ids))

    def keep(self, ids: list[int], cache: ManagedCache, owner: str = "") -> None:
        """Keep a cache that nobody writes to any more, with the ids that went through it."""
        assert tokens_seen(cache) == len(ids), "ids and cache do not belong together"
        if not ids:
            return
        common = {id(kept): _common(kept.ids, ids) for kept in self._of(owner)}
        caches = {
            length: fork
            for kept in self._of(owner)
            for length, fork in kept.caches.items()
            if length <= common[id(kept)]
        }
        longest = {length: caches[length] for length in sorted(caches)[-len(_FROM_END) - 1 :]}
        self._kept = [
            kept for kept in self._kept if common.get(id(kept), -1) < len(kept.ids)
        ]  # the others go on in the new one
        self._kept.append(_Kept(owner, ids, {**longest, len(ids): cache}))
        del self._kept[: max(0, len(self._kept) - self._count)]

    def _of(self, owner: str) -> list[_Kept]:
        return [kept for kept in self._kept if kept.owner == owner]


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
