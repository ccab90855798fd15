"""LlamaIndex's own pipelines run on it, offline: query engines in every mode, chat engines,
retrieval; and a context is read once.
"""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, SummaryIndex, VectorStoreIndex, get_response_synthesizer
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.namm import NammLLM

from tests.integrations.llama_index.conftest import forward_passes
from tests.integrations.llama_index.embedding import WordEmbedding

FACTS = (
    "The access code of the amber vault is 48213.",
    "The room number of the old mill is 77120.",
    "The serial number of the copper bell is 30417.",
    "The door code of the northern station is 40713.",
)
QUESTION = "What is the access code of the amber vault?"
SHORT = PromptTemplate("{context_str}\n\n{query_str}")
MODES = (
    "compact",
    "refine",
    "tree_summarize",
    "simple_summarize",
    "accumulate",
    "compact_accumulate",
)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [Document(text=fact) for fact in FACTS]


@pytest.fixture(scope="module")
def index(documents) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding())


def test_a_query_engine_answers_from_what_it_finds(index, bundled):
    engine = index.as_query_engine(llm=bundled, similarity_top_k=2, text_qa_template=SHORT)
    assert "48213" in str(engine.query(QUESTION))
    assert "40713" in str(
        asyncio.run(engine.aquery("What is the door code of the northern station?"))
    )


def test_a_query_engine_with_llama_indexs_own_prompt(index, bundled):
    assert str(index.as_query_engine(llm=bundled).query(QUESTION)).startswith(
        "The access code of the amber vault is 48213."
    )


def test_llama_indexs_own_prompt_runs(index, bundled):
    response = index.as_query_engine(llm=bundled).query(QUESTION)
    assert str(response)
    assert any("48213" in node.text for node in response.source_nodes)


def test_a_streaming_query_engine(index, bundled):
    engine = index.as_query_engine(llm=bundled, streaming=True, text_qa_template=SHORT)
    pieces = list(engine.query(QUESTION).response_gen)
    assert len(pieces) > 5
    assert "48213" in "".join(pieces)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use_async", [False, True])
def test_every_response_mode_runs(mode, use_async, llm):
    synthesizer = get_response_synthesizer(
        llm=NammLLM(llm.model, max_tokens=8), response_mode=mode, use_async=use_async
    )
    nodes = [NodeWithScore(node=TextNode(text=f"{fact} " * 8), score=1.0) for fact in FACTS]
    assert str(synthesizer.synthesize(QUESTION, nodes))


def test_tree_summarize_packs_with_the_models_own_count(llm):
    """Texts of more tokens than the model has positions are read in several calls, none of them too
    long.
    """
    small = NammLLM(llm.model, max_tokens=8, context_window=1200)
    small.set_as_global_tokenizer()
    from llama_index.core import Settings

    try:
        documents = [
            Document(text=" ".join(f"Sentence {number} of part {part}." for number in range(40)))
            for part in range(6)
        ]
        engine = SummaryIndex.from_documents(documents).as_query_engine(
            llm=small, response_mode="tree_summarize", use_async=True
        )
        with forward_passes(small) as passes:
            assert str(engine.query("Summarize."))
    finally:
        Settings.tokenizer = None
    assert sum(map(len, passes)) > 1200


def buffer() -> ChatMemoryBuffer:
    """LlamaIndex's default memory leaves a database open, which Python warns of."""
    return ChatMemoryBuffer.from_defaults(token_limit=4000)


def test_chat_engines(index, bundled):
    engine = index.as_chat_engine(
        chat_mode="context", llm=bundled, similarity_top_k=1, memory=buffer()
    )
    assert isinstance(engine, ContextChatEngine)
    assert engine.chat(QUESTION).response
    streamed = engine.stream_chat("And the old mill?")
    assert len(list(streamed.response_gen)) > 3
    assert len(engine.chat_history) == 4
    condensing = index.as_chat_engine(
        chat_mode="condense_plus_context", llm=bundled, memory=buffer()
    )
    assert condensing.chat(QUESTION).response
    simple = index.as_chat_engine(chat_mode="simple", llm=bundled, memory=buffer())
    simple.chat(FACTS[0])
    assert "48213" in simple.chat(QUESTION).response


def test_bm25_retrieval(documents, bundled):
    bm25 = pytest.importorskip("llama_index.retrievers.bm25")
    from llama_index.core.query_engine import RetrieverQueryEngine

    nodes = [TextNode(text=document.text) for document in documents]
    retriever = bm25.BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2)
    engine = RetrieverQueryEngine.from_args(retriever, llm=bundled, text_qa_template=SHORT)
    assert "30417" in str(engine.query("What is the serial number of the copper bell?"))


@pytest.fixture(scope="module")
def long_llm(tmp_path_factory) -> NammLLM:
    """The random model with room for 16 000 tokens, one that is used for nothing else."""
    from tests.tiny import save_tiny

    return NammLLM(
        save_tiny(tmp_path_factory.mktemp("long") / "long-llama", positions=16_384), max_tokens=4
    )


def read_tokens(passes: list[list[int]]) -> int:
    """Tokens of prompts that went through the model: all but those of single steps."""
    return sum(len(ids) for ids in passes if len(ids) > 1)


@pytest.mark.parametrize("ask", ["query engine", "aquery", "chat"])
def test_15_the_second_question_on_a_long_context_reads_20_times_less(ask, long_llm):
    text = f"{ask}: " + " ".join(
        f"Request {number} was signed by the head of department {number % 7}."
        for number in range(500)
    )
    assert 8000 < len(long_llm.tokenize(text)) < 14_000
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0)]
    synthesizer = get_response_synthesizer(
        llm=long_llm, response_mode="simple_summarize", text_qa_template=SHORT
    )
    questions = ("Who signed request 12?", "Which requests did the head of department 3 sign?")
    spent = []
    for question in questions:
        with forward_passes(long_llm) as passes:
            if ask == "query engine":
                synthesizer.synthesize(question, nodes)
            elif ask == "aquery":
                asyncio.run(synthesizer.asynthesize(question, nodes))
            else:
                told = [ChatMessage(content=text), ChatMessage(role="assistant", content="Noted.")]
                long_llm.chat([*told, ChatMessage(content=question)])
        spent.append(read_tokens(passes))
    assert spent[0] > 8000
    assert spent[1] * 20 <= spent[0]
