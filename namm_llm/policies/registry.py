"""The table of policies: what `--policy`, `Runner.load` and `namm-llm eval` know by name.

A policy of another package enters by `register_policy`. An entry point of the group
`namm_llm.policies` names its class or module, which is loaded when an unknown name is asked for.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.base import EvictionPolicy
from namm_llm.policies.expected_attention import ExpectedAttention
from namm_llm.policies.full import Full
from namm_llm.policies.h2o import H2O
from namm_llm.policies.keydiff import KeyDiff
from namm_llm.policies.knorm import KNorm
from namm_llm.policies.kvzip import KVzip
from namm_llm.policies.namm import NammPolicy
from namm_llm.policies.novelty import Novelty
from namm_llm.policies.random import Random
from namm_llm.policies.replay import QueryReplay
from namm_llm.policies.snapkv import SnapKV
from namm_llm.policies.streaming_llm import StreamingLLM
from namm_llm.policies.tova import TOVA

P = TypeVar("P", bound=type[EvictionPolicy])
ENTRY_POINTS = "namm_llm.policies"

# for a budget without a policy, where the model has no NAMM of its own: the best that needs no
# training
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
        Novelty,
        Random,
        QueryReplay,
        ExpectedAttention,
        KVzip,
        NammPolicy,
    )
}


def register_policy(policy: P) -> P:
    """Class decorator: makes a policy known by its `name` everywhere a policy can be named.

    PolicyError for a class that is no policy, or a name that another policy has.
    """
    if not (isinstance(policy, type) and issubclass(policy, EvictionPolicy)):
        raise PolicyError(
            f"{policy!r} is no policy; derive it from ScorePolicy or ObservingPolicy."
        )
    name = getattr(policy, "name", None)
    if not name or not isinstance(name, str):
        raise PolicyError(f"{policy.__name__} has no name; set name = '...' in the class.")
    known = POLICIES.get(name)
    if known is not None and known.__qualname__ != policy.__qualname__:
        raise PolicyError(f"the policy name {name!r} is taken by {known.__name__}; choose another.")
    POLICIES[name] = policy
    return policy


def policy_names() -> tuple[str, ...]:
    """The names of all policies, those of installed packages included."""
    _load_installed()
    return tuple(POLICIES)


def policy_class(name: str) -> type[EvictionPolicy]:
    """The policy of this name. PolicyError, with the closest name, if there is none."""
    if name not in POLICIES:
        _load_installed()
    if name not in POLICIES:
        close = get_close_matches(name, POLICIES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise PolicyError(
            f"there is no policy {name!r}{hint}; choose one of {', '.join(POLICIES)}."
        )
    return POLICIES[name]


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
    kind = policy_class(name)
    if kind is not NammPolicy:
        return kind()
    if namm is None:
        raise PolicyError(
            "policy namm needs a trained NAMM: name its file (--namm FILE), or choose another "
            "policy."
        )
    return NammPolicy(namm if isinstance(namm, Namm) else Namm.load(namm), exact)


@cache
def _load_installed() -> None:
    """Register the policies of installed packages. PolicyError, with the package, for one that
    cannot be imported.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found = point.load()
            if isinstance(found, type):  # a module has registered its policies itself
                register_policy(found)
        except ImportError as error:
            package = point.dist.name if point.dist else point.value
            raise PolicyError(
                f"the policy {point.name} of {package} cannot be loaded: {error}."
            ) from error
