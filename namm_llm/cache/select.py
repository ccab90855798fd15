"""`select_tokens`: the tokens that stay at an eviction step, given their scores.

Budget or threshold, protected tokens, and the room that compact positions leave.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from namm_llm.config import CacheConfig
from namm_llm.errors import CacheError
from namm_llm.policies.budget import TokenCost
from namm_llm.policies.selection import by_budget, by_padded_threshold, by_threshold, with_floor


def select_tokens(
    config: CacheConfig,
    scores: Sequence[Tensor],
    positions: Sequence[Tensor],
    seen: int,
    cost: TokenCost,
    room: int | None = None,
) -> list[Tensor | None]:
    """Ascending indices of the tokens that stay, for each KV head; None where all stay.

    scores, positions: `[N_g]` for each of the heads that share a budget. seen: tokens of the
    sequence so far. room: most tokens that a head may keep, whatever the budget. Raises CacheError
    if more are protected.
    """
    limit = None if config.budget is None else config.budget.tokens(seen, cost)
    if limit is not None and room is not None:
        limit = min(limit, room)
    forced = [_protected(config, at, seen, limit) for at in positions]
    if room is not None and any(len(score) > room for score in scores):
        return _within_room(config, scores, forced, limit, room)
    kept = _by_rule(config, scores, forced, limit)
    return [None if len(k) == len(s) else k for k, s in zip(kept, scores, strict=True)]


def _within_room(
    config: CacheConfig,
    scores: Sequence[Tensor],
    forced: Sequence[Tensor],
    limit: int | None,
    room: int,
) -> list[Tensor | None]:
    """The same, of the best `room` tokens of each head."""
    most = max(int(f.sum()) for f in forced)
    if most > room:
        raise CacheError(
            f"{most} protected tokens do not fit into the {room} positions before a window; "
            "protect fewer, ask a shorter question or use a smaller interval."
        )
    best = [by_budget([s], [f], room)[0] for s, f in zip(scores, forced, strict=True)]
    kept = _by_rule(config, _at(scores, best), _at(forced, best), limit)
    return [index[own] for index, own in zip(best, kept, strict=True)]


def _at(columns: Sequence[Tensor], indices: Sequence[Tensor]) -> list[Tensor]:
    return [column[index] for column, index in zip(columns, indices, strict=True)]


def _by_rule(
    config: CacheConfig, scores: Sequence[Tensor], forced: Sequence[Tensor], limit: int | None
) -> list[Tensor]:
    """By threshold or budget, of tokens that are scored and of those forced to stay."""
    if limit is None:
        assert config.policy.threshold is not None
        rule = by_padded_threshold if config.budget_scope == "padded" else by_threshold
        return rule(scores, forced, config.policy.threshold)
    if config.budget_scope == "head":
        return [by_budget([s], [f], limit)[0] for s, f in zip(scores, forced, strict=True)]
    floor = max(config.head_floor, config.policy.head_floor)
    forced = with_floor(scores, forced, int(floor * limit))
    return by_budget(scores, forced, limit * len(scores))


def _protected(config: CacheConfig, positions: Tensor, seen: int, limit: int | None) -> Tensor:
    """Which tokens stay whatever their score, bool `[N]`."""
    policy = config.policy
    sinks = policy.sinks if config.sinks is None else config.sinks
    newest = config.protect_recent
    if newest is None:
        newest = 0 if limit is None else policy.protect_recent(limit)
    # no attention has been paid to the newest token yet
    forced = (positions >= seen - max(newest, 1)) | (positions < sinks)
    for start, end in config.protected:
        forced |= (positions >= start) & (positions < end)
    return forced
