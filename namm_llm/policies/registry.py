"""The table of policies, and `CacheConfig` settings from what a user writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches

from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.base import EvictionPolicy
from namm_llm.policies.budget import Budget, parse_budget
from namm_llm.policies.config import INTERVAL, BudgetScope, CacheConfig
from namm_llm.policies.full import Full
from namm_llm.policies.h2o import H2O
from namm_llm.policies.keydiff import KeyDiff
from namm_llm.policies.knorm import KNorm
from namm_llm.policies.namm import NammPolicy
from namm_llm.policies.random import Random
from namm_llm.policies.replay import QueryReplay
from namm_llm.policies.snapkv import SnapKV
from namm_llm.policies.streaming_llm import StreamingLLM
from namm_llm.policies.tova import TOVA

# for a budget without a policy, where the model has no NAMM of its own: the best that needs no
# training (benchmarks/README.md)
DEFAULT_POLICY = QueryReplay

POLICIES: dict[str, type[EvictionPolicy]] = {
    policy.name: policy
    for policy in (
        Full,
        StreamingLLM,
        H2O,
        SnapKV,
        TOVA,
        KNorm,
        KeyDiff,
        Random,
        QueryReplay,
        NammPolicy,
    )
}


def make_policy(
    name: str | EvictionPolicy,
    namm: Namm | str | os.PathLike[str] | None = None,
    *,
    exact: bool = False,
) -> EvictionPolicy:
    """A policy by its name in the table. namm, exact: a `Namm` or its file, and its precision, for
    the policy `namm`.
    """
    if isinstance(name, EvictionPolicy):
        return name
    if name not in POLICIES:
        close = get_close_matches(name, POLICIES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PolicyError(f"there is no policy {name!r}{hint}; choose one of {', '.join(POLICIES)}")
    if name != NammPolicy.name:
        return POLICIES[name]()
    if namm is None:
        raise PolicyError(
            "policy namm needs a trained NAMM: name its file (--namm FILE), or choose another policy"
        )
    return NammPolicy(namm if isinstance(namm, Namm) else Namm.load(namm), exact)


def make_cache_config(
    policy: str | EvictionPolicy | CacheConfig | None = None,
    *,
    budget: Budget | float | int | str | None = None,
    namm: Namm | str | os.PathLike[str] | None = None,
    budget_scope: BudgetScope | None = None,
    chunked: bool = False,
    interval: int = INTERVAL,
    sinks: int | None = None,
    protect_recent: int | None = None,
    protected: Sequence[tuple[int, int]] = (),
    kv_bits: int | None = None,
    probes: Sequence[Sequence[int]] | None = None,
) -> CacheConfig:
    """Settings of an evicting cache; see `CacheConfig` for each. probes: token ids of each, for a
    NAMM that was made for them. Raises PolicyError, BudgetError or UsageError.

    chunked: whether whoever reads ends its forward calls where updates are due, as the runner does.
    Then the whole model shares the budget of a policy whose scores can be compared, unless
    `budget_scope` says otherwise; else it is each head's own.

    Without a policy: the full cache if there is no budget either, else `namm` if one is given, else
    `DEFAULT_POLICY`.
    """
    if isinstance(policy, CacheConfig):
        return policy
    if policy is None:
        policy = (
            NammPolicy.name
            if namm is not None
            else Full.name
            if budget is None
            else DEFAULT_POLICY.name
        )
    made = make_policy(
        policy, namm, exact=budget_scope == "padded"
    )  # the published rule, in the published precision
    if probes is not None:
        made = made.with_probes(probes)
    return CacheConfig(
        policy=made,
        budget=parse_budget(budget),
        budget_scope=budget_scope or ("model" if chunked and made.comparable else "head"),
        interval=interval,
        sinks=sinks,
        protect_recent=protect_recent,
        protected=tuple((int(start), int(end)) for start, end in protected),
        kv_bits=kv_bits,
    )
