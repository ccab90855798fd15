"""`NammLLM` for LlamaIndex: a local model with a managed cache, see the README beside
`llama_index/`.
"""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "llama_index.llms.namm needs LlamaIndex: pip install 'namm-llm[llama-index]'"
    ) from error

from llama_index.llms.namm.base import NammLLM
from llama_index.llms.namm.index import NammQueryEngine, NammReader

__all__ = ["NammLLM", "NammQueryEngine", "NammReader"]
