"""All settings of an evicting cache in one frozen value: which policy, how much stays, who
competes, what is protected, how often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal, get_args

import torch
from torch import Tensor

from namm_llm.errors import PolicyError, UsageError
from namm_llm.policies.base import EvictionPolicy
from namm_llm.policies.budget import Budget, Room
from namm_llm.policies.selection import by_budget, by_padded_threshold, by_threshold

BudgetScope = Literal["head", "layer", "model", "padded"]
INTERVAL = 512  # tokens between two updates, as in the published run


@dataclass(frozen=True)
class CacheConfig:
    """policy: scores tokens. budget: None for the policy's own threshold. budget_scope: whose
    tokens budget_scope for the budget, those of one `head`, of a `layer` or of the whole `model`;
    `padded` is the published threshold rule, which fills every head up to the fullest. interval:
    tokens between two updates. sinks, protect_recent: first and newest tokens that always stay; None for
    the policy's own. protected: spans `(start, end)` of positions that always stay. kv_bits: 8 to
    keep judged keys and values as 8-bit numbers; None as computed.
    """

    policy: EvictionPolicy
    budget: Budget | None = None
    budget_scope: BudgetScope = "head"
    interval: int = INTERVAL
    sinks: int | None = None
    protect_recent: int | None = None
    protected: tuple[tuple[int, int], ...] = ()
    kv_bits: int | None = None

    def __post_init__(self) -> None:
        if self.budget_scope not in get_args(BudgetScope):
            raise UsageError(
                f"budget_scope must be one of {', '.join(get_args(BudgetScope))}, not {self.budget_scope!r}"
            )
        if self.interval < 1:
            raise UsageError(f"the update interval must be at least 1 token, not {self.interval}")
        for name in ("sinks", "protect_recent"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} must be 0 or more tokens, not {getattr(self, name)}")
        if self.kv_bits not in (None, 8):
            raise UsageError(
                f"kv_bits must be 8, or not given for keys and values as they are computed, not {self.kv_bits!r}"
            )
        if any(start < 0 or end <= start for start, end in self.protected):
            raise UsageError(
                f"a protected span is (start, end) with 0 <= start < end, not {self.protected}"
            )
        if self.budget is not None and not self.policy.evicts:
            raise PolicyError(
                f"policy {self.policy.name} keeps every token and takes no budget; leave out one of the two"
            )
        if self.budget is None and self.policy.threshold is None:
            raise PolicyError(
                f"policy {self.policy.name} needs a budget, for example 0.25 (a quarter of the tokens) or 2048 (tokens)"
            )
        if self.budget_scope == "padded" and (
            self.budget is not None or self.policy.threshold is None
        ):
            raise PolicyError(
                "budget_scope 'padded' is the published threshold rule: it takes no budget, and a policy with a threshold"
            )

    @property
    def waits_for_model(self) -> bool:
        """Whether a layer has to wait for all others before it can evict; probes run through all of
        them.
        """
        return self.shares_model or bool(self.policy.probe_ids)

    @property
    def shares_model(self) -> bool:
        """Whether the tokens of all layers budget_scope."""
        return self.budget_scope == "model" and self.budget is not None and self.policy.evicts

    def with_probes(
        self, texts: Sequence[str] | None, encode: Callable[[str], Sequence[int]]
    ) -> CacheConfig:
        """The same settings with these probes, or without any named with the policy's own, as
        tokens. PolicyError if it takes none.
        """
        if texts is None and (self.policy.probe_ids or not self.policy.takes_probes):
            return self
        chosen = self.policy.probe_texts if texts is None else texts
        return replace(self, policy=self.policy.with_probes([encode(text) for text in chosen]))

    def protect(self, spans: Sequence[tuple[int, int]]) -> CacheConfig:
        """The same settings with more protected spans."""
        return replace(self, protected=(*self.protected, *((int(a), int(b)) for a, b in spans)))

    def select(
        self, scores: Sequence[Tensor], positions: Sequence[Tensor], seen: int, room: Room
    ) -> list[Tensor | None]:
        """Ascending indices of the tokens that stay, for each competing KV head; None where all
        stay.

        scores: `[N_g]` each. positions: `[N_g]` each. seen: tokens of the sequence so far.
        """
        if not self.policy.evicts:
            return [None] * len(scores)
        limit = None if self.budget is None else self.budget.tokens(seen, room)
        forced = [self._forced(at, seen, limit) for at in positions]
        if limit is None:
            assert self.policy.threshold is not None
            rule = by_padded_threshold if self.budget_scope == "padded" else by_threshold
            kept = rule(scores, forced, self.policy.threshold)
        elif self.budget_scope == "head":
            kept = [by_budget([s], [f], limit)[0] for s, f in zip(scores, forced, strict=True)]
        else:
            kept = by_budget(scores, forced, limit * len(scores))
        return [None if len(k) == len(s) else k for k, s in zip(kept, scores, strict=True)]

    def _forced(self, positions: Tensor, seen: int, limit: int | None) -> Tensor:
        sinks = self.policy.sinks if self.sinks is None else self.sinks
        protect_recent = (
            self.protect_recent
            if self.protect_recent is not None
            else self.policy.protect_recent(limit)
            if limit is not None
            else 0
        )
        forced = positions >= seen - max(
            protect_recent, 1
        )  # the newest token has no past to judge it by
        forced |= positions < sinks
        for start, end in self.protected:
            forced |= (positions >= start) & (positions < end)
        return forced

    def describe(self) -> str:
        """One line for tables and results: `namm, budget 0.25, head`."""
        bits = "" if self.kv_bits is None else f", {self.kv_bits}-bit"
        if ids := self.policy.probe_ids:
            bits += f", {len(ids)} probe{'s' if len(ids) > 1 else ''} {sha256(repr(ids).encode()).hexdigest()[:4]}"
        if not self.policy.evicts:
            return f"{self.policy.name}{bits}"
        rule = (
            f"threshold {self.policy.threshold:g}"
            if self.budget is None
            else f"budget {self.budget}"
        )
        return f"{self.policy.name}, {rule}, {self.budget_scope}{bits}"

    def state_nbytes(self) -> int:
        """Bytes that the policy remembers of each token."""
        return self.policy.state_width * torch.finfo(self.policy.state_dtype).bits // 8
