"""A local, quantised Llama whose KV cache is managed by a neural attention memory model (NAMM).

The public names are loaded when they are first used, so that `import namm_llm` does not import
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from namm_llm.version import __version__

if TYPE_CHECKING:
    from namm_llm.attention.observation import Observation
    from namm_llm.cache import ManagedCache
    from namm_llm.cache.stats import CacheStats
    from namm_llm.config import (
        CacheConfig,
        LoadConfig,
        SamplingParams,
        Setting,
        make_cache_config,
        settings_of,
    )
    from namm_llm.document import Document
    from namm_llm.documents import MemoryStore, read_header
    from namm_llm.engine.results import Generation, Piece, TokenLogprob
    from namm_llm.engine.stream import Stream
    from namm_llm.errors import (
        BudgetError,
        CacheError,
        ContextError,
        DocumentError,
        ModelError,
        NammError,
        NammFileError,
        PolicyError,
        UsageError,
    )
    from namm_llm.inspect import Inspection, inspect_memories, kept_entries
    from namm_llm.models.catalogue import catalogue, pull_model
    from namm_llm.models.schemas import response_schema
    from namm_llm.models.tool_stream import ToolCallStream, canonical_tool_choice
    from namm_llm.models.tools import ToolCall, parse_tool_calls
    from namm_llm.namm import Namm, Spectrogram
    from namm_llm.policies import register_policy
    from namm_llm.policies.base import EvictionPolicy, ObservingPolicy, ScorePolicy
    from namm_llm.policies.budget import Budget, parse_budget
    from namm_llm.runner import Runner
    from namm_llm.summaries import Summary, SummaryStream, stream_summary, summarize
    from namm_llm.tokens import HeadTokens

__all__ = [
    "Budget",
    "BudgetError",
    "CacheConfig",
    "CacheError",
    "CacheStats",
    "ContextError",
    "Document",
    "DocumentError",
    "EvictionPolicy",
    "Generation",
    "HeadTokens",
    "Inspection",
    "LoadConfig",
    "ManagedCache",
    "MemoryStore",
    "ModelError",
    "Namm",
    "NammError",
    "NammFileError",
    "Observation",
    "ObservingPolicy",
    "Piece",
    "PolicyError",
    "Runner",
    "SamplingParams",
    "ScorePolicy",
    "Setting",
    "Spectrogram",
    "Stream",
    "Summary",
    "SummaryStream",
    "TokenLogprob",
    "ToolCall",
    "ToolCallStream",
    "UsageError",
    "__version__",
    "canonical_tool_choice",
    "catalogue",
    "inspect_memories",
    "kept_entries",
    "make_cache_config",
    "parse_budget",
    "parse_tool_calls",
    "pull_model",
    "read_header",
    "register_policy",
    "response_schema",
    "settings_of",
    "stream_summary",
    "summarize",
]

_HOME = {
    "catalogue": "namm_llm.models.catalogue",
    "pull_model": "namm_llm.models.catalogue",
    "Budget": "namm_llm.policies.budget",
    "CacheConfig": "namm_llm.config",
    "CacheStats": "namm_llm.cache.stats",
    "Document": "namm_llm.document",
    "EvictionPolicy": "namm_llm.policies.base",
    "Generation": "namm_llm.engine.results",
    "HeadTokens": "namm_llm.tokens",
    "Inspection": "namm_llm.inspect",
    "ManagedCache": "namm_llm.cache",
    "LoadConfig": "namm_llm.config",
    "MemoryStore": "namm_llm.documents",
    "Namm": "namm_llm.namm",
    "Observation": "namm_llm.attention.observation",
    "ObservingPolicy": "namm_llm.policies.base",
    "Piece": "namm_llm.engine.results",
    "Runner": "namm_llm.runner",
    "SamplingParams": "namm_llm.config",
    "ScorePolicy": "namm_llm.policies.base",
    "Setting": "namm_llm.config",
    "Spectrogram": "namm_llm.namm",
    "Stream": "namm_llm.engine.stream",
    "Summary": "namm_llm.summaries",
    "SummaryStream": "namm_llm.summaries",
    "TokenLogprob": "namm_llm.engine.results",
    "ToolCall": "namm_llm.models.tools",
    "ToolCallStream": "namm_llm.models.tool_stream",
    "canonical_tool_choice": "namm_llm.models.tool_stream",
    "inspect_memories": "namm_llm.inspect",
    "kept_entries": "namm_llm.inspect",
    "make_cache_config": "namm_llm.config",
    "parse_budget": "namm_llm.policies.budget",
    "parse_tool_calls": "namm_llm.models.tools",
    "read_header": "namm_llm.documents",
    "register_policy": "namm_llm.policies",
    "response_schema": "namm_llm.models.schemas",
    "settings_of": "namm_llm.config",
    "stream_summary": "namm_llm.summaries",
    "summarize": "namm_llm.summaries",
}


def __getattr__(name: str) -> object:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'namm_llm' has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "namm_llm.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
