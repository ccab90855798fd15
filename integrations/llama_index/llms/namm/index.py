"""`NammReader` and `NammQueryEngine`: documents are read once into memories; a question goes to
those that were found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TransformComponent
from llama_index.llms.namm.base import NammLLM
from namm_integrations.retrieval import FINGERPRINT_KEY, KEY, Combined, MemoryFolder, ask_documents
from namm_integrations.threads import call_in_thread


class NammReader(TransformComponent):
    """Reads each document into a memory and names its file in `metadata["namm"]`: the first step of
    an ingestion, before documents are cut into nodes, which inherit it.

    llm: whose model and cache settings read them. folder: where the memories are kept; what is
    there already is not read again.
    """

    llm: NammLLM
    folder: str

    def __init__(self, llm: NammLLM, folder: str | os.PathLike[str]) -> None:
        super().__init__(llm=llm, folder=os.fspath(folder))

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """The same nodes, with `namm` and `namm_sha256` in their metadata."""
        memories, runner = MemoryFolder(Path(self.folder)), self.llm.runner
        for node in nodes:
            node.metadata |= memories.add(runner, node.get_content())
            for hidden in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
                hidden += [key for key in (KEY, FINGERPRINT_KEY) if key not in hidden]
        return nodes


class NammQueryEngine(BaseQueryEngine):
    """Answers a question from the documents that a retriever finds, each of which was read once.

    llm: asks them. k: how many documents are asked, in one batch. combine: ask them joined as one,
    instead of each by itself.
    """

    def __init__(
        self, retriever: BaseRetriever, llm: NammLLM, *, k: int = 3, combine: bool = False
    ) -> None:
        super().__init__(callback_manager=None)
        self._retriever, self._llm, self._k = retriever, llm, k
        self._combine = combine

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        hits = self._retriever.retrieve(query_bundle)
        return _response(self._ask(query_bundle, hits), hits)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        hits = await self._retriever.aretrieve(query_bundle)
        found = await call_in_thread(lambda cancel: self._ask(query_bundle, hits, cancel))
        return _response(found, hits)

    def _ask(
        self, query: QueryBundle, hits: Sequence[NodeWithScore], cancel: Any = None
    ) -> Combined:
        named = [hit.node.metadata[KEY] for hit in hits if KEY in hit.node.metadata]
        files = list(dict.fromkeys(named))[: self._k]
        call, owner = self._llm._call(), self._llm._runners
        options = {"owner": owner, "combine": self._combine, "cancel": cancel}
        return ask_documents(call, files, query.query_str, **options)


def _response(found: Combined, hits: Sequence[NodeWithScore]) -> Response:
    files = {str(source.file) for source in found.sources}
    asked = [hit for hit in hits if hit.node.metadata.get(KEY) in files]
    sources = {
        str(source.file): {"answer": source.answer.text, "kept": list(source.kept)}
        for source in found.sources
    }
    metadata = {"finish_reason": found.finish_reason, "sources": sources}
    return Response(response=found.text, source_nodes=asked, metadata=metadata)
