"""A long text summarised with LangGraph: its parts as one batch, then their summaries together.

pip install 'namm-llm[langchain,examples]'; python -m examples.langgraph_summary
"""

import operator
import time
from pydoc_data.topics import topics
from typing import Annotated, TypedDict

from langchain_namm import ChatNamm
from langchain_text_splitters import RecursiveCharacterTextSplitter
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class State(TypedDict):
    parts: list[str]
    summaries: Annotated[list[str], operator.add]
    kept: Annotated[list[tuple[int, int]], operator.add]
    summary: str


def main(characters: int = 8000, part: int = 2000) -> State:
    chat = ChatNamm(budget=0.25, interval=128, max_tokens=48, stop=["\n"])

    def ask(text: str) -> tuple[str, tuple[int, int]]:
        answer = chat.invoke(f"{text}\n\nSummarize the text above in one sentence.")
        cache = answer.response_metadata["namm"]
        return answer.text.strip(), (cache["stored_tokens"], cache["seen_tokens"])

    def summarize(state: dict[str, str]) -> dict[str, list]:
        summary, kept = ask(state["part"])
        return {"summaries": [summary], "kept": [kept]}

    def combine(state: State) -> dict[str, object]:
        summary, kept = ask("\n".join(state["summaries"]))
        return {"summary": summary, "kept": [kept]}

    graph = StateGraph(State)
    graph.add_node("summarize", summarize)
    graph.add_node("combine", combine)
    graph.add_conditional_edges(
        START, lambda state: [Send("summarize", {"part": text}) for text in state["parts"]]
    )
    graph.add_edge("summarize", "combine")
    graph.add_edge("combine", END)
    parts = RecursiveCharacterTextSplitter(chunk_size=part, chunk_overlap=0).split_text(
        topics["typesseq"][:characters]
    )
    began = time.perf_counter()
    state = graph.compile().invoke({"parts": parts})
    kept, seen = (sum(numbers) for numbers in zip(*state["kept"], strict=True))
    print(f"{len(parts)} parts: {state['summary']}")
    print(f"kept {kept} of {seen} tokens, {time.perf_counter() - began:.1f} s")
    return state


if __name__ == "__main__":
    main()
