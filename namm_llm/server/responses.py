"""`POST /v1/responses`: answers that a later request can go on from."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from namm_llm.config import SamplingParams
from namm_llm.engine.answer import Request
from namm_llm.engine.results import Generation, Progress
from namm_llm.server.access import body_of, unless_it_leaves
from namm_llm.server.bodies import ResponseBody
from namm_llm.server.errors import ApiError
from namm_llm.server.fields import choice_of
from namm_llm.server.items import Item, call_events, call_item, chat_tool, messages_of
from namm_llm.server.replies import EventStream, Text, Whole, comment, data, reply
from namm_llm.server.service import Service


class Conversations:
    """The messages behind the newest responses, by the response's id and its owner.

    most: responses. nbytes: of all of them.
    """

    def __init__(self, most: int, nbytes: int) -> None:
        self._most = most
        self._nbytes = nbytes
        self._kept: OrderedDict[tuple[str, str], str] = OrderedDict()  # JSON, in ASCII

    async def keep(self, owner: str, id: str, messages: list[Item]) -> None:
        """Keep a conversation; the oldest are forgotten if there are too many, or too large."""
        self._kept[owner, id] = json.dumps(messages)
        while len(self._kept) > self._most or sum(map(len, self._kept.values())) > self._nbytes:
            self._kept.popitem(last=False)

    async def find(self, owner: str, id: str) -> list[Item] | None:
        """The messages up to a response, or None if it is not kept."""
        found: list[Item] | None = json.loads(self._kept.get((owner, id), "null"))
        return found


async def responses(http: HttpRequest) -> Response:
    """The answer to an input, whole or streamed."""
    service: Service = http.app.state.service
    body = await body_of(http, ResponseBody, service.config)
    service.check_model(body.model)
    tools = [chat_tool(tool.given()) for tool in body.tools or ()]
    choice = choice_of(body.tool_choice)
    given = body.input if isinstance(body.input, str) else [each.given() for each in body.input]
    messages = [*await _before(http, body.previous_response_id), *messages_of(given)]
    params = body.params(service.config.sampling, service.positions)
    system = [{"role": "system", "content": body.instructions}] if body.instructions else []
    with ExitStack() as held:
        held.enter_context(service.answers.take())
        (request,) = await service.requests(
            http, [*system, *messages], params, tools=tools, tool_choice=choice, memory=body.memory
        )
        work = _Response(service, body, params, [] if choice == "none" else tools)

        async def keep(output: Sequence[Item]) -> None:
            if body.store is not False:
                kept = [*messages, *messages_of(list(output))]
                await http.app.state.conversations.keep(http.state.owner, work.id, kept)

        if body.stream:
            return EventStream(service, work.stream(request, keep), held.pop_all())
        return JSONResponse(await unless_it_leaves(http, work.whole(request, keep)))


async def _before(http: HttpRequest, id: str | None) -> list[Item]:
    """The messages that a request goes on from. ApiError if they are not kept."""
    if id is None:
        return []
    found: list[Item] | None = await http.app.state.conversations.find(http.state.owner, id)
    if found is None:
        most = http.app.state.service.config.max_responses
        message = f"there is no response {id!r}; at most the newest {most} are kept."
        raise ApiError(404, message, code="not_found", param="previous_response_id")
    return found


@dataclass(frozen=True)
class _Response:
    """One call: who answers, what was asked, and the ids of its parts."""

    service: Service
    body: ResponseBody
    sampling: SamplingParams
    tools: Sequence[Item]
    id: str = field(default_factory=lambda: f"resp_{uuid4().hex}")
    message_id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, request: Request, keep: Any) -> Item:
        """The response without streaming."""
        last: Item = {}
        async with aclosing(self._events(request, keep)) as events:
            async for event in events:
                last = event if isinstance(event, dict) else last
        found: Item = last["response"]
        return found

    async def stream(self, request: Request, keep: Any) -> AsyncGenerator[str, None]:
        """The response as server-sent events."""
        numbers = count()
        async with aclosing(self._events(request, keep)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    yield comment(event)
                else:
                    yield data({**event, "sequence_number": next(numbers)}, event["type"])

    async def _events(self, request: Request, keep: Any) -> AsyncGenerator[Item | Progress, None]:
        """The events of a stream without their numbers; the last one holds the whole response."""
        opened = self._response("in_progress")
        yield {"type": "response.created", "response": opened}
        yield {"type": "response.in_progress", "response": opened}
        parallel = self.body.parallel_tool_calls is not False
        text, output = "", list[Item]()
        async with aclosing(reply(self.service, request, self.tools, parallel=parallel)) as parts:
            async for part in parts:
                if isinstance(part, Progress):
                    yield part
                elif isinstance(part, Text):
                    for event in self._opening() if not text else ():
                        yield event
                    text += part.text
                    yield {**self._at("output_text.delta"), "delta": part.text, "logprobs": []}
                else:
                    if not text and not part.calls:
                        for event in self._opening():
                            yield event
                    if text or not part.calls:
                        output.append(self._text_item(text, "completed"))
                        for event in self._closing(text):
                            yield event
                    for call in part.calls:
                        item = call_item(call)
                        for event in call_events(item, len(output)):
                            yield event
                        output.append(item)
                    await keep(output)
                    cut = part.generation.finish_reason == "length"
                    state = "incomplete" if cut else "completed"
                    response = self._response(state, output, part)
                    yield {"type": f"response.{state}", "response": response}

    def _at(self, what: str) -> Item:
        place = {"item_id": self.message_id, "output_index": 0, "content_index": 0}
        return {"type": f"response.{what}", **place}

    def _opening(self) -> list[Item]:
        item = {**self._text_item("", "in_progress"), "content": []}
        return [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {**self._at("content_part.added"), "part": _text_part("")},
        ]

    def _closing(self, text: str) -> list[Item]:
        item = self._text_item(text, "completed")
        return [
            {**self._at("output_text.done"), "text": text, "logprobs": []},
            {**self._at("content_part.done"), "part": _text_part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]

    def _text_item(self, text: str, status: str) -> Item:
        content = [_text_part(text)]
        head = {"id": self.message_id, "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _response(self, status: str, output: Sequence[Item] = (), end: Whole | None = None) -> Item:
        body, given = self.body, self.body.given()
        asked = {
            "instructions": body.instructions,
            "previous_response_id": body.previous_response_id,
            "max_output_tokens": body.max_output_tokens,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": [_shown_tool(tool) for tool in given.get("tools", [])],
            "temperature": self.sampling.temperature,
            "top_p": 1.0 if self.sampling.top_p is None else self.sampling.top_p,
            "presence_penalty": self.sampling.presence_penalty,
            "frequency_penalty": self.sampling.frequency_penalty,
            "top_logprobs": 0,
            "text": {"format": {"type": "text"}, **given.get("text", {})},
            "truncation": "disabled",
            "store": body.store is not False,
            "background": False,
            "service_tier": "default",
            "metadata": body.metadata or {},
            "user": body.user,
            "safety_identifier": body.safety_identifier,
            "prompt_cache_key": body.prompt_cache_key,
            "max_tool_calls": None,
            "reasoning": None,
        }
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        head = {"id": self.id, "object": "response", "created_at": self.created, "status": status}
        done = int(time.time()) if end is not None else None
        return {
            **head,
            "completed_at": done if status == "completed" else None,
            "model": self.service.config.name,
            "output": list(output),
            "error": None,
            "incomplete_details": cut,
            "usage": None if end is None else _usage(end.generation),
            **asked,
            **({} if end is None else {"namm": end.report}),
        }


def _text_part(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _shown_tool(tool: Item) -> Item:
    return {"description": None, "parameters": None, "strict": None, **tool}


def _usage(generation: Generation) -> Item:
    usage = generation.usage
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
