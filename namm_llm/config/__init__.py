"""Every setting once: name, type, default, limits, help text.

`LoadConfig`, `CacheConfig` and `SamplingParams` declare them as fields; `settings_of` lists them.
The command line, `Runner.load`, `ManagedCache.for_model` and the adapters are generated from this
list. Imports no torch.
"""

from namm_llm.config.cache import (
    CACHE,
    INTERVAL,
    TEXT,
    BudgetScope,
    CacheConfig,
    Positions,
    make_cache_config,
)
from namm_llm.config.load import DEFAULT_MODEL, Device, LoadConfig, Quantization
from namm_llm.config.sampling import CONSTRAINTS, MOST_GUESSED, SAMPLING, SamplingParams
from namm_llm.config.setting import (
    Group,
    Setting,
    check_names,
    closest,
    declared_in,
    split,
    takes_settings,
)

__all__ = [
    "CACHE",
    "CONSTRAINTS",
    "DEFAULT_MODEL",
    "INTERVAL",
    "LOAD",
    "MOST_GUESSED",
    "RUN",
    "SAMPLING",
    "TEXT",
    "BudgetScope",
    "CacheConfig",
    "Device",
    "Group",
    "LoadConfig",
    "Positions",
    "Quantization",
    "SamplingParams",
    "Setting",
    "check_names",
    "closest",
    "make_cache_config",
    "settings_of",
    "split",
    "takes_settings",
]

_MODEL = declared_in(LoadConfig, "load")
LOAD = tuple(each for each in _MODEL if each.group == "load")
RUN = tuple(each for each in _MODEL if each.group == "run")


def settings_of(*groups: Group) -> tuple[Setting, ...]:
    """The settings of these groups, in the order in which help texts show them.

    `Runner.load` takes load, run and cache, `Runner.with_cache` takes cache,
    `ManagedCache.for_model` takes cache and text, an answer takes sampling; commands and adapters
    take all but text.
    """
    return tuple(each for each in (*LOAD, *RUN, *CACHE, *TEXT, *SAMPLING) if each.group in groups)
