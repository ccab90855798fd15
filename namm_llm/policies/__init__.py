"""Eviction policies: how cached tokens are scored and which of them stay."""

from namm_llm.policies.base import EvictionPolicy
from namm_llm.policies.budget import Budget, parse_budget
from namm_llm.policies.eviction import INTERVAL, Compete, Eviction
from namm_llm.policies.namm import NammPolicy
from namm_llm.policies.registry import DEFAULT_POLICY, POLICIES, make_eviction, make_policy

__all__ = [
    "DEFAULT_POLICY",
    "INTERVAL",
    "POLICIES",
    "Budget",
    "Compete",
    "Eviction",
    "EvictionPolicy",
    "NammPolicy",
    "make_eviction",
    "make_policy",
    "parse_budget",
]
