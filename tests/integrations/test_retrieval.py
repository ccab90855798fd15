"""Documents are read once; questions go to the memories that a retriever finds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_namm import ChatNamm, NammIndex, NammReader
from llama_index.core import Document as LlamaDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.llms.namm import NammLLM, NammQueryEngine
from llama_index.llms.namm import NammReader as LlamaReader
from namm_integrations.memories import OPEN

from namm_llm import Runner, UsageError

TEXTS = [
    "The rain fell on the harbour. The access code of the amber vault is 48213. " * 4,
    "Nobody was at the mill. The access code of the ivory gate is 90177. " * 4,
    "The wind was cold. The room number of the silver archive is 315. " * 4,
]
QUESTION = "What is the access code of the ivory gate?"


def embedded(text: str) -> list[float]:
    """Which words a text has: enough to find by."""
    vector = [0.0] * 64
    for word in text.lower().replace(".", "").replace("?", "").split():
        vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1.0
    return vector


class Words(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [embedded(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return embedded(text)


class LlamaWords(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return embedded(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embedded(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embedded(query)


@pytest.fixture
def chat() -> ChatNamm:
    return ChatNamm(model="namm-tiny", max_tokens=30)


def documents() -> list[Document]:
    return [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]


async def test_a_question_is_answered_from_the_document_that_is_found(
    chat: ChatNamm, tmp_path: Path
) -> None:
    index = NammIndex.from_documents(documents(), chat, Words(), tmp_path, k=1)
    found = index.invoke(QUESTION)
    assert found.text == "The access code of the ivory gate is 90177."
    assert found.finish_reason == "stop"
    (source,) = found.sources
    assert source.answer.usage.cached_tokens > 50  # of the document nothing was read again
    assert any("ivory gate is 90177" in sentence for sentence in source.kept)
    assert (await index.ainvoke(QUESTION)).text == found.text


def test_several_documents_are_asked_in_one_batch_and_combined(
    chat: ChatNamm, tmp_path: Path
) -> None:
    index = NammIndex.from_documents(documents(), chat, Words(), tmp_path, k=2)
    found = index.invoke(QUESTION)
    assert len(found.sources) == 2
    assert "90177" in found.sources[0].answer.text
    runner = Runner.load("namm-tiny")
    alone = [runner.open(each.file).ask(QUESTION, max_tokens=30).text for each in found.sources]
    assert [each.answer.text for each in found.sources] == alone
    assert found.text


def test_a_text_is_read_once(chat: ChatNamm, tmp_path: Path) -> None:
    read = NammReader(chat, tmp_path)
    first = read.transform_documents(documents())
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = read.transform_documents(documents())
    assert [each.metadata for each in again] == [each.metadata for each in first]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times
    assert len(list(tmp_path.glob("*.namm"))) == len(TEXTS)
    assert first[0].metadata["n"] == 0
    other = NammReader(chat.model_copy(update={"kv_bits": 8}), tmp_path)
    assert other.transform_documents(documents())[0].metadata["namm"] not in map(str, times)


def test_a_hit_is_a_memory_for_one_call(chat: ChatNamm, tmp_path: Path) -> None:
    (read, *_) = NammReader(chat, tmp_path).transform_documents(documents())
    answer = chat.invoke(
        "What is the access code of the amber vault?", memory=read.metadata["namm"]
    )
    assert "48213" in answer.text


def test_memories_of_an_index_stay_within_the_limit(chat: ChatNamm, tmp_path: Path) -> None:
    index = NammIndex.from_documents(documents(), chat, Words(), tmp_path, k=3)
    before, OPEN.limit = OPEN.limit, 1
    try:
        index.invoke(QUESTION)
        assert len(OPEN) == 1
    finally:
        OPEN.limit = before


def test_an_index_without_documents_is_one_clear_line(chat: ChatNamm, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no document to ask"):
        NammIndex.from_documents([], chat, Words(), tmp_path).invoke(QUESTION)


async def test_llama_index_ingests_and_asks_the_same_way(tmp_path: Path) -> None:
    llm = NammLLM("namm-tiny", max_tokens=30)
    splitter = SentenceSplitter(chunk_size=60, chunk_overlap=0)
    pipeline = IngestionPipeline(transformations=[LlamaReader(llm, tmp_path), splitter])
    nodes = pipeline.run(documents=[LlamaDocument(text=text) for text in TEXTS])
    assert len(nodes) > len(TEXTS)
    assert "namm" not in nodes[0].get_content(metadata_mode="embed")
    index = VectorStoreIndex(nodes, embed_model=LlamaWords())
    engine = NammQueryEngine(index.as_retriever(similarity_top_k=4), llm, k=1)
    for found in (engine.query(QUESTION), await engine.aquery(QUESTION)):
        assert str(found) == "The access code of the ivory gate is 90177."
        assert found.metadata["finish_reason"] == "stop"
        (source,) = found.metadata["sources"].values()
        assert any("ivory gate is 90177" in each for each in source["kept"])
        assert all("ivory" in node.text for node in found.source_nodes)
