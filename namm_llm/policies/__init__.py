"""Eviction policies: how cached tokens are scored and which of them stay.

The names are loaded when they are first used, so that a budget can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namm_llm.policies.base import EvictionPolicy, ObservingPolicy, ScorePolicy
    from namm_llm.policies.budget import Budget, parse_budget
    from namm_llm.policies.namm import NammPolicy
    from namm_llm.policies.registry import (
        DEFAULT_POLICY,
        POLICIES,
        make_policy,
        policy_class,
        policy_names,
        register_policy,
    )

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "Budget",
    "EvictionPolicy",
    "NammPolicy",
    "ObservingPolicy",
    "ScorePolicy",
    "make_policy",
    "parse_budget",
    "policy_class",
    "policy_names",
    "register_policy",
]

_HOME = {
    "Budget": "budget",
    "parse_budget": "budget",
    "EvictionPolicy": "base",
    "ObservingPolicy": "base",
    "ScorePolicy": "base",
    "NammPolicy": "namm",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'namm_llm.policies' has no attribute {name!r}")
    value = getattr(import_module(f"namm_llm.policies.{_HOME.get(name, 'registry')}"), name)
    globals()[name] = value
    return value
