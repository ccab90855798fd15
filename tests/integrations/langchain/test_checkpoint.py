"""A LangGraph thread resumes from its saved cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import SystemMessage
from langchain_namm import ChatNamm
from langchain_namm.checkpoint import NammSaver
from langgraph.checkpoint.memory import InMemorySaver

SYSTEM = "You answer questions about vaults. " * 12
EVICTING = {"policy": "h2o", "budget": 0.5, "interval": 32}


def agent(chat: ChatNamm, saver: Any) -> Any:
    return create_agent(chat, [], system_prompt=SYSTEM, checkpointer=saver)


def ask(agent: Any, question: str, thread: str = "a") -> Any:
    config = {"configurable": {"thread_id": thread}}
    return agent.invoke({"messages": [("user", question)]}, config)["messages"][-1]


def restarted(folder: Path, chunk: int, **settings: Any) -> ChatNamm:
    """A chat whose runner, of another chunk, has read nothing."""
    return ChatNamm(model=str(folder), max_tokens=6, chunk=chunk, **settings)


@pytest.mark.parametrize("settings", [{}, EVICTING], ids=["full", "h2o"])
def test_a_thread_resumes_without_reading(
    long_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    inner = InMemorySaver()
    first = restarted(long_folder, 100, **settings)
    for question in ("What holds vault 1?", "And vault 2?"):
        ask(agent(first, NammSaver(inner, first, tmp_path, system_prompt=SYSTEM)), question)
    assert len(list(tmp_path.glob("*.namm"))) == 1

    second = restarted(long_folder, 101, **settings)
    saver = NammSaver(inner, second, tmp_path, system_prompt=SYSTEM)
    resumed = ask(agent(second, saver), "And vault 3?")
    used = resumed.usage_metadata
    assert used["input_tokens"] > 100
    assert used["input_tokens"] - used["input_token_details"]["cache_read"] < 40
    graph = agent(first, inner)
    told = graph.get_state({"configurable": {"thread_id": "a"}}).values["messages"][:-1]
    assert first.invoke([SystemMessage(SYSTEM), *told]).text == resumed.text


async def test_async_resumes_too(long_folder: Path, tmp_path: Path) -> None:
    inner, config = InMemorySaver(), {"configurable": {"thread_id": "a"}}
    read = []
    for chunk in (102, 103):
        chat = restarted(long_folder, chunk)
        graph = agent(chat, NammSaver(inner, chat, tmp_path, system_prompt=SYSTEM))
        found = await graph.ainvoke({"messages": [("user", "What?")]}, config)
        used = found["messages"][-1].usage_metadata
        read.append(used["input_tokens"] - used["input_token_details"]["cache_read"])
    assert read[0] > 100 > 40 > read[1]


def test_a_cache_of_other_settings_is_warned_of_and_the_thread_is_read(
    long_folder: Path, tmp_path: Path
) -> None:
    inner, first = InMemorySaver(), restarted(long_folder, 104)
    ask(agent(first, NammSaver(inner, first, tmp_path, system_prompt=SYSTEM)), "What?")
    second = restarted(long_folder, 104, **EVICTING)
    graph = agent(second, NammSaver(inner, second, tmp_path, system_prompt=SYSTEM))
    with pytest.warns(UserWarning, match="thread a is read again: .*other cache settings"):
        assert ask(graph, "And?").usage_metadata["input_token_details"]["cache_read"] == 0


def test_a_deleted_thread_takes_its_cache_along(long_folder: Path, tmp_path: Path) -> None:
    chat = restarted(long_folder, 105)
    saver = NammSaver(InMemorySaver(), chat, tmp_path, system_prompt=SYSTEM)
    ask(agent(chat, saver), "What?")
    saver.delete_thread("a")
    assert list(tmp_path.iterdir()) == []
    assert list(saver.list({"configurable": {"thread_id": "a"}})) == []
