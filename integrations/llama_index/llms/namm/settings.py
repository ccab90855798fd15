"""The names of an LLM's settings, as given to `NammLLM(...)` or to one call: which of them are
whose, what else they are known as, and an error for a name that nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from namm_llm import UsageError

LOADING = (
    "model",
    "quantization",
    "device",
    "dtype",
    "revision",
    "local_files_only",
    "trust_remote_code",
)
CACHE = (
    "policy",
    "budget",
    "namm",
    "interval",
    "budget_scope",
    "sinks",
    "protect_recent",
    "kv_bits",
    "chunk",
    "prefix_caches",
)
SAMPLING = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "json_schema",
    "regex",
    "grammar",
)
PLAIN = (*LOADING, *CACHE, *SAMPLING)  # what can be set for an LLM and for one call
TOOLS = ("tools", "tool_choice", "allow_parallel_tool_calls")

# what other local integrations call them
ALIASES = {
    "model_id": "model",
    "model_name": "model",
    "model_path": "model",
    "device_map": "device",
    "torch_dtype": "dtype",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "num_ctx": "context_window",
    "n_ctx": "context_window",
}


def canonical(given: Mapping[str, Any], known: Collection[str], what: str) -> dict[str, Any]:
    """The settings under their own names. UsageError for an unknown name, or for one setting under
    two names.

    what: whose settings they are, for the message.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        own = name if name in known else ALIASES.get(name, name)
        if own not in known:
            close = get_close_matches(name, [*known, *ALIASES], n=1)
            hint = (
                f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}."
            )
            raise UsageError(f"{what} has no setting {name!r}; {hint}")
        if own in found:
            raise UsageError(f"{what} was given {own} twice, once as {name}; give it once.")
        found[own] = value
    return found


def part(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Those of the names that are set; what is None is left to the library, which has the defaults."""
    return {name: settings[name] for name in names if settings.get(name) is not None}


@dataclass(frozen=True)
class Call:
    """The settings of one call. loading: arguments of `Runner.load`. sampling: of `SamplingParams`.
    memory: a document read before, or its file. tools: schemas in the OpenAI form. parallel:
    whether more than one tool may be called at once.
    """

    loading: dict[str, Any]
    sampling: dict[str, Any]
    memory: Any = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel: bool = True

    @classmethod
    def of(cls, own: Mapping[str, Any], given: Mapping[str, Any]) -> Call:
        """The settings of an LLM with those of one call in their place. UsageError for an unknown
        name.
        """
        known = (*PLAIN, "memory", *TOOLS)
        merged = {**own, **canonical(given, known, "a call of NammLLM")}
        return cls(
            loading=part(merged, (*LOADING, *CACHE)),
            sampling=part(merged, SAMPLING),
            memory=merged.get("memory"),
            tools=merged.get("tools") or None,
            tool_choice=merged.get("tool_choice"),
            parallel=merged.get("allow_parallel_tool_calls", True),
        )
