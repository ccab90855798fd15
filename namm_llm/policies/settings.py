"""CacheConfig settings as plain values for a file's header, and back; a NAMM's numbers go along as
tensors.

Files outlive programs. What a file does not name has its default, and settings that came after the
first files are named only where they differ from it: so an old file opens with a program that knows
more, a new one with a program that knows less if nothing new was used, and what is found by its
settings (a memory in the store, a summary's work) is still found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.budget import Budget, ByteBudget, FractionBudget, TokenBudget, parse_budget
from namm_llm.policies.config import CacheConfig
from namm_llm.policies.registry import POLICIES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_TENSORS = "namm."  # before the names of a NAMM's tensors
# named in every file; nothing is ever added here
_FIRST = frozenset(
    "policy budget budget_scope interval sinks protect_recent protected kv_bits namm exact window kernel border seed num_sinks recent_share".split()
)


def settings_of(eviction: CacheConfig) -> dict[str, Any]:
    """Everything that decides what is evicted, ready for JSON, a NAMM by its settings and
    fingerprint; equal values, equal behaviour. PolicyError for a budget that cannot be written.
    """
    policy = {name: _plain(value) for name, value in _named(eviction.policy).items()}
    return {
        **_named(eviction),
        "policy": {"name": eviction.policy.name, **policy},
        "budget": _written(eviction.budget),
        "protected": [list(span) for span in eviction.protected],
    }


def tensors_of(eviction: CacheConfig) -> dict[str, Tensor]:
    """The numbers of the policy's NAMM, if it has one, under names that no cache uses."""
    return {
        f"{_TENSORS}{name}": tensor
        for namm in _namms(eviction)
        for name, tensor in namm.parts()[1].items()
    }


def config_of(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CacheConfig:
    """The inverse of `settings_of` and `tensors_of`. PolicyError for a policy or a setting that is
    not known here.
    """
    values = dict(settings)
    policy = dict(values.pop("policy"))
    name = policy.pop("name")
    if name not in POLICIES:
        raise PolicyError(
            f"policy {name!r} is not known here; if it is your own, put it into namm_llm.policies.POLICIES first"
        )
    _check_known(policy, POLICIES[name], f"policy {name}")
    _check_known(values, CacheConfig, "the cache")
    if "namm" in policy:
        numbers = {
            key.removeprefix(_TENSORS): tensor
            for key, tensor in tensors.items()
            if key.startswith(_TENSORS)
        }
        policy["namm"] = Namm.from_parts(policy["namm"], numbers)
    protected = tuple((int(start), int(end)) for start, end in values.pop("protected"))
    return CacheConfig(
        POLICIES[name](**policy), parse_budget(values.pop("budget")), protected=protected, **values
    )


def _named(value: DataclassInstance) -> dict[str, Any]:
    """The fields that a file names."""
    return {
        field.name: getattr(value, field.name)
        for field in fields(value)
        if _is_named(field, getattr(value, field.name))
    }


def _is_named(field: Field[Any], value: object) -> bool:
    return field.name in _FIRST or value != field.default


def _check_known(values: Mapping[str, Any], kind: type[DataclassInstance], of: str) -> None:
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        names = ", ".join(unknown)
        raise PolicyError(
            f"{of} has the setting {names}, which this program does not know; update namm-llm, or read the document again"
        )


def _namms(eviction: CacheConfig) -> list[Namm]:
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
    raise PolicyError(
        f"a budget of your own ({type(budget).__name__}) cannot be saved; use a fraction, a number of tokens or a size"
    )
