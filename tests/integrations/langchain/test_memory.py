"""What two prompts share is read once, and a saved memory of a document can stand in the place of
its text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_namm import ChatNamm, NammLLM

from namm_llm import Runner, UsageError

STUFF = ChatPromptTemplate([("system", "Use this context:\n{context}"), ("user", "{question}")])
ONE_MESSAGE = ChatPromptTemplate(
    [("user", "{context}\n\nAnswer from the text above.\nQuestion: {question}")]
)
QUESTIONS = [
    "What holds vault 17?",
    "Which of the vaults is the one that nobody has opened since the fox came?",
]
EVICTING = {"policy": "keydiff", "budget": 0.25, "interval": 512}


@pytest.fixture(scope="module")
def context() -> str:
    return "\n".join(f"The vault {n} holds {n * 7919 % 1000} coins." for n in range(700))


def reading(message: AIMessage) -> int:
    """Tokens that had to be computed before the answer."""
    used = message.usage_metadata
    assert used is not None
    return used["input_tokens"] - used["input_token_details"]["cache_read"]


@pytest.mark.parametrize(
    ("prompt", "cache"),
    [(STUFF, {}), (ONE_MESSAGE, EVICTING)],
    ids=["system, full", "user, keydiff"],
)
def test_another_question_on_the_same_8000_tokens_reads_20_times_less(
    folder: Path, context: str, cache: dict[str, Any], prompt: ChatPromptTemplate
) -> None:
    chat = prompt | ChatNamm(model=str(folder), max_tokens=8, **cache)
    first, second = (
        chat.invoke({"context": context, "question": question}) for question in QUESTIONS
    )
    assert reading(first) > 8000
    assert reading(second) * 20 <= reading(first)
    fresh = prompt | ChatNamm(model=str(folder), max_tokens=8, prefix_caches=0, **cache)
    expected = fresh.invoke({"context": context, "question": QUESTIONS[1]})
    assert reading(expected) > 8000
    assert second.content == expected.content
    kept = [message.response_metadata["namm"]["stored_tokens"] for message in (second, expected)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("cls", [ChatNamm, NammLLM])
def test_a_saved_memory_stands_in_the_place_of_the_text(
    folder: Path, tmp_path: Path, cls: Any
) -> None:
    runner = Runner.load(folder, policy="h2o", budget=0.5, interval=32)
    document = runner.read("The vault 1 holds 919 coins and a fox. " * 8)
    document.save(tmp_path / "vaults.namm")
    settings = {"model": str(folder), "policy": "h2o", "budget": 0.5, "interval": 32}
    saved = cls(**settings, memory=tmp_path / "vaults.namm", max_tokens=10)
    held = cls(memory=document, max_tokens=10)
    expected = document.ask(QUESTIONS[0], max_tokens=10).text
    for model in (saved, held):
        found = model.invoke(QUESTIONS[0])
        assert (found.content if isinstance(found, AIMessage) else found) == expected
        streamed = "".join(
            part.content if isinstance(found, AIMessage) else part
            for part in model.stream(QUESTIONS[0])
        )
        assert streamed == expected
    if cls is ChatNamm:
        used = held.invoke(QUESTIONS[0]).usage_metadata
        assert used["input_token_details"]["cache_read"] == document.cache.seen_tokens()[0]


def test_a_conversation_goes_on_behind_a_memory(folder: Path) -> None:
    document = Runner.load(folder).read("The vault 1 holds 919 coins and a fox.")
    chat = ChatNamm(memory=document, max_tokens=10)
    first = chat.invoke([SystemMessage("Be brief."), HumanMessage(QUESTIONS[0])])
    second = chat.invoke(
        [SystemMessage("Be brief."), HumanMessage(QUESTIONS[0]), first, HumanMessage("Really?")]
    )
    assert second.usage_metadata["input_tokens"] > first.usage_metadata["input_tokens"]
    # a chat that keeps its prefixes goes on from the very tokens of its answer, and random weights
    # write some that no text gives
    plain = ChatNamm(model=str(folder), max_tokens=10, prefix_caches=0)
    text = f"The vault 1 holds 919 coins and a fox.\n\nBe brief.\n\n{QUESTIONS[0]}"
    assert first.content == plain.invoke([HumanMessage(text)]).content
    assert (
        second.content == plain.invoke([HumanMessage(text), first, HumanMessage("Really?")]).content
    )


def test_cache_settings_beside_a_memory_are_refused(folder: Path) -> None:
    document = Runner.load(folder).read("The vault 1 holds 919 coins and a fox.")
    with pytest.raises(
        UsageError, match="budget is a setting of the memory's own runner; leave it out"
    ):
        ChatNamm(memory=document, budget=0.5).invoke("x")
