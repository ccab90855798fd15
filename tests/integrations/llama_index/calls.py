"""The eight endpoints of an LLM as one function each, so that a test can run over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llama_index.core.llms import ChatMessage
from llama_index.llms.namm import NammLLM


@dataclass(frozen=True)
class Seen:
    """What one endpoint gave: its responses (one, if it does not stream), their text and the
    numbers of the last.
    """

    responses: list

    @property
    def text(self) -> str:
        last = self.responses[-1]
        return last.text if hasattr(last, "text") else last.message.content

    @property
    def raw(self) -> dict:
        return self.responses[-1].raw


async def _all(stream) -> list:
    return [response async for response in stream]


def _chat(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=prompt)]


CALLS: dict[str, Callable[..., Seen]] = {
    "complete": lambda llm, prompt, **kw: Seen([llm.complete(prompt, **kw)]),
    "stream_complete": lambda llm, prompt, **kw: Seen(list(llm.stream_complete(prompt, **kw))),
    "acomplete": lambda llm, prompt, **kw: Seen([asyncio.run(llm.acomplete(prompt, **kw))]),
    "astream_complete": lambda llm, prompt, **kw: Seen(
        asyncio.run(_astream(llm.astream_complete, prompt, kw))
    ),
    "chat": lambda llm, prompt, **kw: Seen([llm.chat(_chat(prompt), **kw)]),
    "stream_chat": lambda llm, prompt, **kw: Seen(list(llm.stream_chat(_chat(prompt), **kw))),
    "achat": lambda llm, prompt, **kw: Seen([asyncio.run(llm.achat(_chat(prompt), **kw))]),
    "astream_chat": lambda llm, prompt, **kw: Seen(
        asyncio.run(_astream(llm.astream_chat, _chat(prompt), kw))
    ),
}
STREAMS = [name for name in CALLS if "stream" in name]


async def _astream(endpoint, asked, kw) -> list:
    return await _all(await endpoint(asked, **kw))


def ask(name: str, llm: NammLLM, prompt: str, **kw) -> Seen:
    """Call the endpoint with that name; a chat gets the prompt as the message of a user."""
    return CALLS[name](llm, prompt, **kw)
