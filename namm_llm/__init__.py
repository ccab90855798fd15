"""A local, quantised Llama whose KV cache is managed by a neural attention memory model (NAMM).

The public names are loaded when they are first used, so that `import namm_llm` does not import
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from namm_llm.version import __version__ as __version__

if TYPE_CHECKING:  # what `_PUBLIC` says, for type checkers
    from namm_llm.attention.observation import Observation as Observation
    from namm_llm.cache import ManagedCache as ManagedCache
    from namm_llm.cache.stats import CacheStats as CacheStats
    from namm_llm.config import CacheConfig as CacheConfig
    from namm_llm.config import LoadConfig as LoadConfig
    from namm_llm.config import SamplingParams as SamplingParams
    from namm_llm.config import Setting as Setting
    from namm_llm.config import make_cache_config as make_cache_config
    from namm_llm.config import settings_of as settings_of
    from namm_llm.document import Document as Document
    from namm_llm.documents import MemoryStore as MemoryStore
    from namm_llm.documents import read_header as read_header
    from namm_llm.engine.results import Generation as Generation
    from namm_llm.engine.results import Piece as Piece
    from namm_llm.engine.results import TokenLogprob as TokenLogprob
    from namm_llm.engine.stream import Stream as Stream
    from namm_llm.errors import BudgetError as BudgetError
    from namm_llm.errors import CacheError as CacheError
    from namm_llm.errors import ContextError as ContextError
    from namm_llm.errors import DocumentError as DocumentError
    from namm_llm.errors import ModelError as ModelError
    from namm_llm.errors import NammError as NammError
    from namm_llm.errors import NammFileError as NammFileError
    from namm_llm.errors import PolicyError as PolicyError
    from namm_llm.errors import UsageError as UsageError
    from namm_llm.inspect import Inspection as Inspection
    from namm_llm.inspect import inspect_memories as inspect_memories
    from namm_llm.inspect import kept_entries as kept_entries
    from namm_llm.models.catalogue import catalogue as catalogue
    from namm_llm.models.catalogue import pull_model as pull_model
    from namm_llm.models.schemas import response_schema as response_schema
    from namm_llm.models.tool_stream import ToolCallStream as ToolCallStream
    from namm_llm.models.tool_stream import canonical_tool_choice as canonical_tool_choice
    from namm_llm.models.tools import ToolCall as ToolCall
    from namm_llm.models.tools import parse_tool_calls as parse_tool_calls
    from namm_llm.namm import Namm as Namm
    from namm_llm.namm import Spectrogram as Spectrogram
    from namm_llm.policies import register_policy as register_policy
    from namm_llm.policies.base import EvictionPolicy as EvictionPolicy
    from namm_llm.policies.base import ObservingPolicy as ObservingPolicy
    from namm_llm.policies.base import ScorePolicy as ScorePolicy
    from namm_llm.policies.budget import Budget as Budget
    from namm_llm.policies.budget import parse_budget as parse_budget
    from namm_llm.runner import Runner as Runner
    from namm_llm.summaries import Summary as Summary
    from namm_llm.summaries import SummaryStream as SummaryStream
    from namm_llm.summaries import stream_summary as stream_summary
    from namm_llm.summaries import summarize as summarize
    from namm_llm.tokens import HeadTokens as HeadTokens

_PUBLIC = {
    "attention.observation": "Observation",
    "cache": "ManagedCache",
    "cache.stats": "CacheStats",
    "config": "CacheConfig LoadConfig SamplingParams Setting make_cache_config settings_of",
    "document": "Document",
    "documents": "MemoryStore read_header",
    "engine.results": "Generation Piece TokenLogprob",
    "engine.stream": "Stream",
    "errors": "BudgetError CacheError ContextError DocumentError ModelError "
    "NammError NammFileError PolicyError UsageError",
    "inspect": "Inspection inspect_memories kept_entries",
    "models.catalogue": "catalogue pull_model",
    "models.schemas": "response_schema",
    "models.tool_stream": "ToolCallStream canonical_tool_choice",
    "models.tools": "ToolCall parse_tool_calls",
    "namm": "Namm Spectrogram",
    "policies": "register_policy",
    "policies.base": "EvictionPolicy ObservingPolicy ScorePolicy",
    "policies.budget": "Budget parse_budget",
    "runner": "Runner",
    "summaries": "Summary SummaryStream stream_summary summarize",
    "tokens": "HeadTokens",
}
_HOME = {name: f"namm_llm.{home}" for home, names in _PUBLIC.items() for name in names.split()}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'namm_llm' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
