"""The table of policies, and `Eviction` settings from what a user writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches

from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.base import EvictionPolicy
from namm_llm.policies.budget import Budget, parse_budget
from namm_llm.policies.eviction import INTERVAL, Compete, Eviction
from namm_llm.policies.full import Full
from namm_llm.policies.h2o import H2O
from namm_llm.policies.keydiff import KeyDiff
from namm_llm.policies.knorm import KNorm
from namm_llm.policies.namm import NammPolicy
from namm_llm.policies.random import Random
from namm_llm.policies.reread import Reread
from namm_llm.policies.snapkv import SnapKV
from namm_llm.policies.streaming_llm import StreamingLLM
from namm_llm.policies.tova import TOVA

# for a budget without a policy, where the model has no NAMM of its own: the best that needs no training (benchmarks/README.md)
DEFAULT_POLICY = Reread

POLICIES: dict[str, type[EvictionPolicy]] = {
    policy.name: policy for policy in (Full, StreamingLLM, H2O, SnapKV, TOVA, KNorm, KeyDiff, Random, Reread, NammPolicy)
}


def make_policy(name: str | EvictionPolicy, namm: Namm | str | os.PathLike[str] | None = None, *, exact: bool = False) -> EvictionPolicy:
    """A policy by its name in the table. namm, exact: a `Namm` or its file, and its precision, for the policy `namm`."""
    if isinstance(name, EvictionPolicy):
        return name
    if name not in POLICIES:
        close = get_close_matches(name, POLICIES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PolicyError(f"there is no policy {name!r}{hint}; choose one of {', '.join(POLICIES)}")
    if name != NammPolicy.name:
        return POLICIES[name]()
    if namm is None:
        raise PolicyError("policy namm needs a trained NAMM: name its file (--namm FILE), or choose another policy")
    return NammPolicy(namm if isinstance(namm, Namm) else Namm.load(namm), exact)


def make_eviction(
    policy: str | EvictionPolicy | Eviction | None = None,
    *,
    budget: Budget | float | int | str | None = None,
    namm: Namm | str | os.PathLike[str] | None = None,
    compete: Compete | None = None,
    chunked: bool = False,
    interval: int = INTERVAL,
    sinks: int | None = None,
    recent: int | None = None,
    protected: Sequence[tuple[int, int]] = (),
    kv_bits: int | None = None,
    probes: Sequence[Sequence[int]] | None = None,
) -> Eviction:
    """Settings of an evicting cache; see `Eviction` for each. probes: token ids of each, for a NAMM that was made for them. Raises
    PolicyError, BudgetError or UsageError.

    chunked: whether whoever reads ends its forward calls where updates are due, as the runner does. Then the whole model shares the budget
    of a policy whose scores can be compared, unless `compete` says otherwise; else it is each head's own.

    Without a policy: the full cache if there is no budget either, else `namm` if one is given, else `DEFAULT_POLICY`.
    """
    if isinstance(policy, Eviction):
        return policy
    if policy is None:
        policy = NammPolicy.name if namm is not None else Full.name if budget is None else DEFAULT_POLICY.name
    made = make_policy(policy, namm, exact=compete == "padded")  # the published rule, in the published precision
    if probes is not None:
        made = made.with_probes(probes)
    return Eviction(
        policy=made,
        budget=parse_budget(budget),
        compete=compete or ("model" if chunked and made.comparable else "head"),
        interval=interval,
        sinks=sinks,
        recent=recent,
        protected=tuple((int(start), int(end)) for start, end in protected),
        kv_bits=kv_bits,
    )
