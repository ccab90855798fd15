"""The caches of the last prompts, so that a prompt which goes on where one of them ended is not computed from its beginning.

Only whole caches are reused: an evicting cache cannot be cut back to an earlier token. Used by the worker's thread alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from namm_llm.cache import ManagedCache
from namm_llm.runner.generation import tokens_seen


@dataclass(frozen=True)
class _Kept:
    ids: list[int]
    cache: ManagedCache


class PrefixStore:
    """At most `count` caches, the least recently used forgotten first; a count of 0 keeps none."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[_Kept] = []

    @property
    def is_on(self) -> bool:
        """Whether anything is ever kept."""
        return self._count > 0

    def continue_from(self, ids: list[int]) -> tuple[ManagedCache, int] | None:
        """A fork of the longest kept cache with which `ids` begin, and its tokens; at least one token is left to read."""
        fitting = [kept for kept in self._kept if len(kept.ids) < len(ids) and ids[: len(kept.ids)] == kept.ids]
        if not fitting:
            return None
        best = max(fitting, key=lambda kept: len(kept.ids))
        self._kept.remove(best)
        self._kept.append(best)
        return best.cache.fork(), len(best.ids)

    def keep(self, ids: list[int], cache: ManagedCache) -> None:
        """Keep a cache that nobody writes to any more, with the ids that went through it."""
        assert tokens_seen(cache) == len(ids), "ids and cache do not belong together"
        if not ids:
            return
        self._kept = [kept for kept in self._kept if kept.ids != ids]
        self._kept.append(_Kept(ids, cache))
        del self._kept[: max(0, len(self._kept) - self._count)]

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()
