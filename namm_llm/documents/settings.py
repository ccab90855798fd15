"""Eviction settings as plain values for a file's header, and back; a NAMM's numbers go along as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies import POLICIES, Eviction, parse_budget
from namm_llm.policies.budget import Budget, ByteBudget, FractionBudget, TokenBudget

_TENSORS = "namm."  # before the names of a NAMM's tensors


def settings_of(eviction: Eviction) -> dict[str, Any]:
    """Everything that decides what is evicted, ready for JSON, a NAMM by its settings and fingerprint; equal values, equal behaviour."""
    values = {field.name: getattr(eviction, field.name) for field in fields(eviction)}
    policy = {field.name: _plain(getattr(eviction.policy, field.name)) for field in fields(eviction.policy)}
    return {
        **values,
        "policy": {"name": eviction.policy.name, **policy},
        "budget": _written(eviction.budget),
        "protected": [list(span) for span in eviction.protected],
    }


def tensors_of(eviction: Eviction) -> dict[str, Tensor]:
    """The numbers of the policy's NAMM, if it has one, under names that no cache uses."""
    return {f"{_TENSORS}{name}": tensor for namm in _namms(eviction) for name, tensor in namm.parts()[1].items()}


def eviction_of(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Eviction:
    """The inverse of `settings_of` and `tensors_of`. PolicyError for a policy that is not in the table."""
    values = dict(settings)
    policy = dict(values.pop("policy"))
    name = policy.pop("name")
    if name not in POLICIES:
        raise PolicyError(f"policy {name!r} is not known here; if it is your own, put it into namm_llm.policies.POLICIES first")
    if "namm" in policy:
        numbers = {key.removeprefix(_TENSORS): tensor for key, tensor in tensors.items() if key.startswith(_TENSORS)}
        policy["namm"] = Namm.from_parts(policy["namm"], numbers)
    protected = tuple((int(start), int(end)) for start, end in values.pop("protected"))
    return Eviction(POLICIES[name](**policy), parse_budget(values.pop("budget")), protected=protected, **values)


def _namms(eviction: Eviction) -> list[Namm]:
    values = (getattr(eviction.policy, field.name) for field in fields(eviction.policy))
    return [value for value in values if isinstance(value, Namm)]


def _plain(value: object) -> object:
    return value.parts()[0] if isinstance(value, Namm) else value


def _written(budget: Budget | None) -> float | int | str | None:
    """What `parse_budget` makes the same budget of."""
    match budget:
        case None:
            return None
        case FractionBudget(fraction):
            return float(fraction)
        case TokenBudget(count):
            return count
        case ByteBudget(_, text):
            return text
    raise PolicyError(f"a budget of your own ({type(budget).__name__}) cannot be saved; use a fraction, a number of tokens or a size")
