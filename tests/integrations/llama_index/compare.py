"""The pitfalls as checks that any local LlamaIndex integration can be put to, and the table of the
README beside the integration.

`python -m tests.integrations.llama_index.compare` checks `NammLLM`, and `HuggingFaceLLM` too where
llama-index-llms-huggingface is installed, both on the same tiny random model.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.namm import NammLLM

PROMPT = "Who signs travel requests?"
PATIENCE = 20.0  # seconds, for what may never return
Make = Callable[..., Any]  # an LLM from the settings that all of them have


class Answer(BaseModel):
    """A yes or a no."""

    yes: bool


class Subject:
    """An integration under test. make: an LLM from `max_tokens` and fields that every LlamaIndex
    LLM has.
    """

    def __init__(self, make: Make, model_of: Callable[[Any], Any], limit: str) -> None:
        self.make, self.model_of, self.limit = make, model_of, limit

    def prompts(
        self, llm: Any, call: Callable[[], Any], seen: list[list[int]] | None = None
    ) -> list[list[int]]:
        """The ids of every forward pass during the call; the call can watch `seen` grow."""
        seen = [] if seen is None else seen
        hook = self.model_of(llm).register_forward_pre_hook(
            lambda _m, _a, kw: seen.append(kw["input_ids"][0].tolist()), with_kwargs=True
        )
        try:
            call()
        finally:
            hook.remove()
        return seen


def stop_is_honoured(of: Subject) -> bool:
    llm = of.make(max_tokens=12)
    whole = llm.complete(PROMPT).text
    stop = whole[3:7]
    return llm.complete(PROMPT, stop=[stop]).text == whole[: whole.index(stop)]


def settings_of_a_call(of: Subject) -> bool:
    llm = of.make(max_tokens=12)
    return len(of.prompts(llm, lambda: llm.complete("a limit of one token", **{of.limit: 1}))) <= 3


def typing_errors_raise(of: Subject) -> bool:
    try:
        of.make(max_tokens=2).complete(PROMPT, tempurature=0.5)
    except Exception:
        return True
    return False


def tools_are_called(of: Subject) -> bool:
    llm = of.make(max_tokens=60)
    tool = FunctionTool.from_defaults(
        lambda yes: str(yes), name="say", description="Says it.", fn_schema=Answer
    )
    return (
        len(
            llm.get_tool_calls_from_response(
                llm.chat_with_tools([tool], PROMPT, tool_required=True)
            )
        )
        == 1
    )


def objects_are_valid(of: Subject) -> bool:
    return isinstance(
        of.make(max_tokens=60).structured_predict(Answer, PromptTemplate(PROMPT)), Answer
    )


def one_token_begins_a_chat(of: Subject) -> bool:
    llm = of.make(max_tokens=1)
    passes = of.prompts(llm, lambda: llm.chat([ChatMessage(content="begins once")]))
    return list(chain(*passes)).count(0) == 1


def usage_is_reported(of: Subject) -> bool:
    *_, last = of.make(max_tokens=5).stream_complete(PROMPT)
    return last.raw["usage"]["completion_tokens"] == 5


def errors_reach_a_stream(of: Subject) -> bool:
    llm = of.make(max_tokens=5)
    raised = threading.Event()

    def fail(*_: Any) -> None:
        raise RuntimeError("the model broke")

    def read() -> None:
        try:
            list(llm.stream_complete("fails"))
        except RuntimeError:
            raised.set()

    llm.complete("loads it", **{of.limit: 1})
    hook = of.model_of(llm).lm_head.register_forward_hook(fail)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(PATIENCE)
    hook.remove()
    return raised.is_set()


def an_abandoned_stream_stops(of: Subject) -> bool:
    llm, seen = of.make(max_tokens=300), list[list[int]]()

    def abandon() -> None:
        stream = llm.stream_complete("abandoned")
        next(stream)
        stream.close()
        passes = -1
        while len(seen) > passes:  # until nothing happens any more
            passes = len(seen)
            threading.Event().wait(0.5)

    return len(of.prompts(llm, abandon, seen)) < 100


def async_leaves_the_loop_alone(of: Subject) -> bool:
    llm = of.make(max_tokens=100)

    async def count() -> int:
        ticks, asking = 0, asyncio.create_task(llm.acomplete(PROMPT))
        while not asking.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks

    return asyncio.run(count()) > 10


def eight_threads(of: Subject) -> bool:
    llm = of.make(max_tokens=12)
    prompts = [f"{PROMPT} {number}" for number in range(8)]
    alone = [llm.complete(prompt).text for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda prompt: llm.complete(prompt).text, prompts)) == alone


def a_context_is_read_once(of: Subject) -> bool:
    llm, context = of.make(max_tokens=1), "The head of the department signs. " * 40
    first, second = (
        sum(map(len, of.prompts(llm, lambda q=q: llm.complete(f"{context}{q}"))))
        for q in ("Who?", "What?")
    )
    return second * 4 < first


def all_paths_read_the_same(of: Subject) -> bool:
    read = []
    for call in (lambda llm: llm.complete("same?"), lambda llm: list(llm.stream_complete("same?"))):
        llm = of.make(max_tokens=1, system_prompt="Be short.")
        read.append(list(chain(*of.prompts(llm, lambda call=call, llm=llm: call(llm)))))
    return read[0] == read[1]


def a_chat_is_counted_once(of: Subject) -> bool:
    counter = TokenCountingHandler(tokenizer=lambda text: [0] * 1000)
    of.make(max_tokens=5, callback_manager=CallbackManager([counter])).chat(
        [ChatMessage(content=PROMPT)]
    )
    return [event.completion_token_count for event in counter.llm_token_counts] == [5]


CHECKS = {
    "1 a stop text is honoured and cut off": stop_is_honoured,
    "3 settings of one call are honoured": settings_of_a_call,
    "3 a misspelt setting is an error": typing_errors_raise,
    "5, 7 a tool that is required is called": tools_are_called,
    "6 structured prediction gives a valid object": objects_are_valid,
    "8 one token begins a chat": one_token_begins_a_chat,
    "9 a stream ends with its usage": usage_is_reported,
    "11 an error reaches the reader of a stream": errors_reach_a_stream,
    "12 an abandoned stream stops": an_abandoned_stream_stops,
    "13 async leaves the event loop alone": async_leaves_the_loop_alone,
    "14 eight threads get the answers that they get alone": eight_threads,
    "15 what two prompts share is read once": a_context_is_read_once,
    "17 complete and stream_complete read the same prompt": all_paths_read_the_same,
    "22 a chat is counted once, with real numbers": a_chat_is_counted_once,
}


def run(of: Subject) -> dict[str, str]:
    """Each check: yes, no, or the kind of error."""
    found = {}
    for name, check in CHECKS.items():
        try:
            found[name] = "yes" if check(of) else "no"
        except Exception as error:
            found[name] = type(error).__name__
    return found


def namm(folder: Path) -> Subject:
    """Ours; each with a runner of its own, which has read nothing."""
    chunks = count(512)
    return Subject(
        lambda **fields: NammLLM(folder, chunk=next(chunks), **fields),
        lambda llm: llm.runner.loaded.model,
        "max_tokens",
    )


def hugging_face(folder: Path) -> Subject:
    """The usual one, set up as its documentation says; greedy, as ours is by default. ImportError
    where it is not installed.
    """
    from llama_index.llms.huggingface import HuggingFaceLLM

    def make(max_tokens: int, **fields: Any) -> Any:
        where = {
            "model_name": str(folder),
            "tokenizer_name": str(folder),
            "device_map": "cpu",
            "context_window": 4000,
        }
        return HuggingFaceLLM(
            max_new_tokens=max_tokens, generate_kwargs={"do_sample": False}, **where, **fields
        )

    return Subject(make, lambda llm: llm._model, "max_new_tokens")


def main() -> None:
    """Prints the table in Markdown."""
    from tests.tiny import save_tiny

    warnings.simplefilter("ignore")
    with TemporaryDirectory() as name:
        folder = save_tiny(Path(name) / "tiny-llama")
        columns = {"`NammLLM`": run(namm(folder))}
        with suppress(ImportError):
            columns["`HuggingFaceLLM`"] = run(hugging_face(folder))
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for check in CHECKS:
        print(f"| {check} | {' | '.join(column[check] for column in columns.values())} |")
    print(
        f"| **passed of {len(CHECKS)}** | "
        + " | ".join(str(list(column.values()).count("yes")) for column in columns.values())
        + " |"
    )


if __name__ == "__main__":
    main()
