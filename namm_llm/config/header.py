"""`CacheConfig` as plain values for a file's header, and back; a NAMM's numbers go along as
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from namm_llm.config.cache import CacheConfig
from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.budget import (
    Budget,
    ByteBudget,
    FractionBudget,
    MeasuredBudget,
    TokenBudget,
    parse_budget,
)
from namm_llm.policies.registry import policy_class

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LATER = {
    field.name: field.default
    for field in fields(CacheConfig)
    if field.name in ("head_floor", "positions")
}
"""Settings that came after the first files: named where they differ, so that IDs stay the same."""
_TENSORS = "namm."  # before the names of a NAMM's tensors


def config_to_dict(config: CacheConfig) -> dict[str, Any]:
    """Everything that decides what is evicted, ready for JSON, a NAMM by its settings and
    fingerprint; equal values, equal behaviour. PolicyError for a budget that cannot be written.
    """
    policy = {name: _plain(value) for name, value in _values(config.policy).items()}
    values = _values(config)
    unnamed = [name for name, default in _LATER.items() if values[name] == default]
    return {
        **{name: value for name, value in values.items() if name not in unnamed},
        "policy": {"name": config.policy.name, **policy},
        "budget": _written(config.budget),
        "protected": [list(span) for span in config.protected],
    }


def config_tensors(config: CacheConfig) -> dict[str, Tensor]:
    """The numbers of the policy's NAMM, if it has one, under names that no cache uses."""
    return {
        f"{_TENSORS}{name}": tensor
        for value in _values(config.policy).values()
        if isinstance(value, Namm)
        for name, tensor in value.parts()[1].items()
    }


def config_from_dict(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CacheConfig:
    """The inverse of `config_to_dict` and `config_tensors`. PolicyError for a policy or a setting
    that is not known here.
    """
    values = dict(settings)
    policy = dict(values.pop("policy"))
    kind = policy_class(policy.pop("name"))
    _check_known(policy, kind, f"policy {kind.name}")
    _check_known(values, CacheConfig, "the cache")
    if "namm" in policy:
        numbers = {
            key.removeprefix(_TENSORS): tensor
            for key, tensor in tensors.items()
            if key.startswith(_TENSORS)
        }
        policy["namm"] = Namm.from_parts(policy["namm"], numbers)
    protected = tuple((int(start), int(end)) for start, end in values.pop("protected", ()))
    budget = parse_budget(values.pop("budget", None))
    return CacheConfig(kind(**policy), budget, protected=protected, **values)


def _values(value: DataclassInstance) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _check_known(values: Mapping[str, Any], kind: type[DataclassInstance], of: str) -> None:
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise PolicyError(
            f"{of} has the setting {', '.join(unknown)}, which this program does not know; "
            "update namm-llm, or read the document again."
        )


def _plain(value: object) -> object:
    return value.parts()[0] if isinstance(value, Namm) else value


def _written(budget: Budget | None) -> float | int | str | None:
    """What `parse_budget` makes the same budget of."""
    match budget:
        case None:
            return None
        case FractionBudget(fraction):
            return float(fraction)
        case MeasuredBudget(inner):
            return _written(inner)
        case TokenBudget(count):
            return count  # from 2 on, as `parse_budget` wants it
        case ByteBudget(_, text):
            return text
    raise PolicyError(
        f"a budget of your own ({type(budget).__name__}) cannot be saved; "
        "use a fraction, a number of tokens or a size."
    )
