"""A local, quantised Llama whose KV cache is managed by a neural attention memory model (NAMM).

The public names are loaded when they are first used, so that `import namm_llm` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from namm_llm.attention.observation import Observation
    from namm_llm.bench import BenchFile, Benchmark, CacheSide, TimedReading, costs_of, draw_rows, run_benchmark, save_model
    from namm_llm.cache import CacheStats, ManagedCache, StaticDecoder
    from namm_llm.documents import DocumentMemory
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
    from namm_llm.inspect import Inspection, inspect_memories, kept_places
    from namm_llm.namm import Namm, Spectrogram
    from namm_llm.policies import make_eviction
    from namm_llm.runner import Generation, Piece, Runner, Stream
    from namm_llm.runner.sampling import SamplingParams
    from namm_llm.runner.tools import ToolCall, parse_tool_calls
    from namm_llm.summaries import Summary, SummaryStream, stream_summary, summarize
    from namm_llm.tasks import draw_samples
    from namm_llm.tasks.evaluation import Evaluation, RowFile, draw_scores, evaluate

__version__ = "0.1.0"

__all__ = [
    "BenchFile",
    "Benchmark",
    "BudgetError",
    "CacheError",
    "CacheSide",
    "CacheStats",
    "ContextError",
    "DocumentError",
    "DocumentMemory",
    "Evaluation",
    "Generation",
    "Inspection",
    "ManagedCache",
    "ModelError",
    "Namm",
    "NammError",
    "NammFileError",
    "Observation",
    "Piece",
    "PolicyError",
    "RowFile",
    "Runner",
    "SamplingParams",
    "Spectrogram",
    "StaticDecoder",
    "Stream",
    "Summary",
    "SummaryStream",
    "TimedReading",
    "ToolCall",
    "UsageError",
    "__version__",
    "costs_of",
    "draw_rows",
    "draw_samples",
    "draw_scores",
    "evaluate",
    "inspect_memories",
    "kept_places",
    "make_eviction",
    "parse_tool_calls",
    "run_benchmark",
    "save_model",
    "stream_summary",
    "summarize",
]

_HOME = {
    "BenchFile": "namm_llm.bench",
    "Benchmark": "namm_llm.bench",
    "CacheSide": "namm_llm.bench",
    "CacheStats": "namm_llm.cache",
    "DocumentMemory": "namm_llm.documents",
    "Evaluation": "namm_llm.tasks.evaluation",
    "Generation": "namm_llm.runner",
    "Inspection": "namm_llm.inspect",
    "ManagedCache": "namm_llm.cache",
    "Namm": "namm_llm.namm",
    "Observation": "namm_llm.attention.observation",
    "Piece": "namm_llm.runner",
    "RowFile": "namm_llm.tasks.evaluation",
    "Runner": "namm_llm.runner",
    "SamplingParams": "namm_llm.runner.sampling",
    "Spectrogram": "namm_llm.namm",
    "StaticDecoder": "namm_llm.cache",
    "Stream": "namm_llm.runner",
    "Summary": "namm_llm.summaries",
    "SummaryStream": "namm_llm.summaries",
    "TimedReading": "namm_llm.bench",
    "ToolCall": "namm_llm.runner.tools",
    "costs_of": "namm_llm.bench",
    "draw_rows": "namm_llm.bench",
    "draw_samples": "namm_llm.tasks",
    "draw_scores": "namm_llm.tasks.evaluation",
    "evaluate": "namm_llm.tasks.evaluation",
    "inspect_memories": "namm_llm.inspect",
    "kept_places": "namm_llm.inspect",
    "make_eviction": "namm_llm.policies",
    "parse_tool_calls": "namm_llm.runner.tools",
    "stream_summary": "namm_llm.summaries",
    "summarize": "namm_llm.summaries",
    "run_benchmark": "namm_llm.bench",
    "save_model": "namm_llm.bench",
}


def __getattr__(name: str) -> object:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'namm_llm' has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "namm_llm.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
