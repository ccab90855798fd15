"""`POST /v1/completions`."""

from __future__ import annotations

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
from namm_llm.models.prompt import Prompt
from namm_llm.server.access import body_of, unless_it_leaves
from namm_llm.server.bodies import CompletionBody
from namm_llm.server.fields import Prompts
from namm_llm.server.replies import (
    DONE,
    EventStream,
    Text,
    collected,
    comment,
    data,
    replies,
    usage_of,
)
from namm_llm.server.service import Service


async def completions(http: HttpRequest) -> Response:
    """Texts that go on from prompts, whole or streamed."""
    service: Service = http.app.state.service
    body = await body_of(http, CompletionBody, service.config)
    service.check_model(body.model)
    params = body.params(service.config.sampling, service.positions)
    prompts = prompts_of(body.prompt)
    with ExitStack() as held:
        held.enter_context(service.answers.take(body.n * len(prompts)))
        requests = list[Request]()
        for prompt in prompts:
            requests += await service.requests(
                http, prompt, params, count=body.n, memory=body.memory
            )
        work = _Completion(service, body, _echoes(service, prompts, body))
        if body.stream:
            return EventStream(service, work.stream(requests), held.pop_all())
        return JSONResponse(await unless_it_leaves(http, work.whole(requests)))


def prompts_of(prompt: Prompts) -> list[Prompt]:
    """One prompt, or several."""
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return list(prompt)


def _echoes(service: Service, prompts: Sequence[Any], body: CompletionBody) -> list[str]:
    """What stands before each choice."""
    if not body.echo:
        return ["" for _ in range(len(prompts) * body.n)]
    decode = service.runner.decode
    texts = [each if isinstance(each, str) else decode(each) for each in prompts]
    return [text for text in texts for _ in range(body.n)]


@dataclass(frozen=True)
class _Completion:
    """One call: who answers, what was asked, and what stands before each choice."""

    service: Service
    body: CompletionBody
    echoes: Sequence[str]
    id: str = field(default_factory=lambda: f"cmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def _head(self) -> dict[str, Any]:
        name = self.service.config.name
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": name}

    async def whole(self, requests: Sequence[Request]) -> dict[str, Any]:
        """The response without streaming."""
        found = await collected(replies(self.service, requests), len(requests))
        choices = [
            self._choice(at, self.echoes[at] + text, own, end.generation.finish_reason)
            for at, (text, own, end) in enumerate(found)
        ]
        usage = _usage_of_prompts([end.generation for _, _, end in found], self.body.n)
        return {**self._head(), "choices": choices, "usage": usage, "namm": found[0][2].report}

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[str, None]:
        """The response as server-sent events."""
        ends = dict[int, Generation]()
        for at, text in enumerate(self.echoes):
            if text:
                yield self._event(at, text)
        async with aclosing(replies(self.service, requests)) as parts:
            async for each in parts:
                part = each.part
                if isinstance(part, Progress):
                    yield comment(part)
                elif isinstance(part, Text):
                    yield self._event(each.index, part.text, part.logprobs)
                else:
                    ends[each.index] = part.generation
                    yield self._event(each.index, "", reason=part.generation.finish_reason)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            usage = _usage_of_prompts([ends[at] for at in sorted(ends)], self.body.n)
            yield data({**self._head(), "choices": [], "usage": usage})
        yield DONE

    def _event(
        self,
        index: int,
        text: str,
        logprobs: Sequence[TokenLogprob] = (),
        reason: str | None = None,
    ) -> str:
        return data({**self._head(), "choices": [self._choice(index, text, logprobs, reason)]})

    def _choice(
        self, index: int, text: str, logprobs: Sequence[TokenLogprob], reason: str | None
    ) -> dict[str, Any]:
        shown = None if self.body.logprobs is None else _columns(logprobs)
        return {"index": index, "text": text, "logprobs": shown, "finish_reason": reason}


def _columns(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities as completions have them."""
    return {
        "tokens": [each.text for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [{top.text: top.logprob for top in each.top} for each in logprobs],
    }


def _usage_of_prompts(found: Sequence[Generation], count: int) -> dict[str, Any]:
    """`usage` over several prompts with `count` choices each."""
    each = [usage_of(found[start : start + count]) for start in range(0, len(found), count)]
    total = {
        name: sum(usage[name] for usage in each)
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in each)
    return {**total, "prompt_tokens_details": {"cached_tokens": cached}}
