"""`POST /v1/chat/completions`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from namm_llm.engine.answer import Request
from namm_llm.engine.results import Generation, Progress, TokenLogprob
from namm_llm.models.tools import ToolCall
from namm_llm.server import replies
from namm_llm.server.access import body_of, unless_it_leaves
from namm_llm.server.bodies import ChatBody
from namm_llm.server.fields import choice_of
from namm_llm.server.replies import Numbered, Part
from namm_llm.server.service import Service


async def chat_completions(http: HttpRequest) -> Response:
    """The answers to a conversation, whole or streamed."""
    service: Service = http.app.state.service
    body = await body_of(http, ChatBody, service.config)
    service.check_model(body.model)
    tools, choice = [each.given() for each in body.tools or ()], choice_of(body.tool_choice)
    params = body.params(service.config.sampling, service.positions)
    work = _Chat(service, body, [] if choice == "none" else tools)
    with ExitStack() as held:
        held.enter_context(service.answers.take(body.n))
        requests = await service.requests(
            http,
            [each.plain() for each in body.messages],
            params,
            count=body.n,
            tools=tools,
            tool_choice=choice,
            memory=body.memory,
        )
        if body.stream:
            return replies.EventStream(service, work.stream(requests), held.pop_all())
        return JSONResponse(await unless_it_leaves(http, work.whole(requests)))


@dataclass(frozen=True)
class _Chat:
    """One call: who answers, and what was asked."""

    service: Service
    body: ChatBody
    tools: Sequence[dict[str, Any]]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def _parts(self, requests: Sequence[Request]) -> AsyncGenerator[Numbered[Part], None]:
        parallel = self.body.parallel_tool_calls is not False
        return replies.replies(self.service, requests, self.tools, parallel=parallel)

    def _head(self, kind: str) -> dict[str, Any]:
        name = self.service.config.name
        return {"id": self.id, "object": kind, "created": self.created, "model": name}

    async def whole(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The response without streaming."""
        found = await replies.collected(self._parts(requests), len(requests))
        choices = [
            {
                "index": at,
                "message": _message(text, end.calls),
                "logprobs": self._logprobs(own),
                "finish_reason": finish_reason(end),
            }
            for at, (text, own, end) in enumerate(found)
        ]
        return {
            **self._head("chat.completion"),
            "choices": choices,
            "usage": replies.usage_of([end.generation for _, _, end in found]),
            "namm": found[0][2].report,
        }

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[str, None]:
        """The response as server-sent events."""
        ends = list[Generation]()
        for at in range(len(requests)):
            yield self._chunk(at, {"role": "assistant", "content": ""})
        async with aclosing(self._parts(requests)) as parts:
            async for each in parts:
                part = each.part
                if isinstance(part, Progress):
                    yield replies.comment(part)
                elif isinstance(part, replies.Text):
                    yield self._chunk(each.index, {"content": part.text}, part.logprobs)
                else:
                    ends.append(part.generation)
                    for event in self._end(each.index, part):
                        yield event
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            head = self._head("chat.completion.chunk")
            yield replies.data({**head, "choices": [], "usage": replies.usage_of(ends)})
        yield replies.DONE

    def _end(self, index: int, whole: replies.Whole) -> list[str]:
        """The last chunks of a choice."""
        calls = [
            self._chunk(index, {"tool_calls": [{"index": at, **_call(call)}]})
            for at, call in enumerate(whole.calls)
        ]
        report = {"namm": whole.report}
        return [*calls, self._chunk(index, {}, reason=finish_reason(whole), more=report)]

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Sequence[TokenLogprob] = (),
        *,
        reason: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> str:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs(logprobs) if logprobs else None,
            "finish_reason": reason,
        }
        return replies.data(
            {**self._head("chat.completion.chunk"), "choices": [choice], **(more or {})}
        )

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        return {"content": [each.to_openai() for each in logprobs], "refusal": None}


def finish_reason(whole: replies.Whole) -> str:
    """OpenAI's word for the end of an answer."""
    return "tool_calls" if whole.calls else whole.generation.finish_reason


def _message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
        "annotations": [],
    }
    return {**message, "tool_calls": [_call(call) for call in calls]} if calls else message


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
