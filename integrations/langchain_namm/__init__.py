"""LangChain's chat model and language model on `namm_llm`: a local, quantised Llama with an
evicting key-value cache.
"""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise ImportError(
        "langchain_namm needs LangChain: pip install 'namm-llm[langchain]'"
    ) from error

from langchain_namm.chat import ChatNamm
from langchain_namm.index import NammIndex, NammReader
from langchain_namm.llm import NammLLM

__all__ = ["ChatNamm", "NammIndex", "NammLLM", "NammReader"]
