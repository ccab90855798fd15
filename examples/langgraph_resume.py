"""LangGraph: a thread goes on after a restart from its saved cache, without reading its messages.

pip install 'namm-llm[langchain,examples]'; python -m examples.langgraph_resume
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_namm import ChatNamm
from langchain_namm.checkpoint import NammSaver
from langgraph.checkpoint.memory import InMemorySaver

from examples.demo import build
from namm_llm import Runner


def main(records: int = 8) -> tuple[int, int]:
    """Tokens read for the first question, and for one after the restart."""
    text, stated = build(Runner.load(), count=records)
    # in a real program a SqliteSaver, which outlives the process as the caches do
    messages = InMemorySaver()
    with TemporaryDirectory() as folder:
        first = _ask(512, messages, Path(folder), f"{text}\n\n{stated[0].question}")
        # a runner with other settings has read nothing: it stands for the restarted process
        second = _ask(500, messages, Path(folder), stated[1].question)
    return first, second


def _ask(chunk: int, messages: InMemorySaver, folder: Path, question: str) -> int:
    chat = ChatNamm(chunk=chunk, budget=0.5, max_tokens=40)
    agent = create_agent(chat, [], checkpointer=NammSaver(messages, chat, folder))
    thread = {"configurable": {"thread_id": "a thread"}}
    answer = agent.invoke({"messages": [("user", question)]}, thread)["messages"][-1]
    read, cache = _read(answer), answer.response_metadata["namm"]
    print(f"{question[-60:]}\n  {answer.text}")
    seconds = cache["prefill_seconds"]
    print(f"  read {read} of {cache['seen_tokens']} tokens, kept {cache['stored_tokens']},", end="")
    print(f" {seconds:.2f} s")
    return read


def _read(answer: AIMessage) -> int:
    used = answer.usage_metadata
    return used["input_tokens"] - used["input_token_details"]["cache_read"]


if __name__ == "__main__":
    main()
