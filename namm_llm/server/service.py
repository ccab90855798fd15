"""`Service`: what the routes share: the runner, its memories, the limits and the numbers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from starlette.requests import Request as HttpRequest

from namm_llm.config import SamplingParams
from namm_llm.document import Document
from namm_llm.engine.answer import Request
from namm_llm.engine.results import Generation
from namm_llm.errors import UsageError
from namm_llm.models.prompt import Prompt
from namm_llm.models.tools import Tool, ToolChoice
from namm_llm.runner import Runner
from namm_llm.server.config import ServerConfig
from namm_llm.server.errors import ApiError
from namm_llm.server.memories import Memories
from namm_llm.server.metrics import Metrics
from namm_llm.server.places import Places

LOG = logging.getLogger("namm_llm.server")
NO_LIMIT = 2**31 - 1
T = TypeVar("T")


class Service:
    """A runner that serves many clients."""

    def __init__(self, runner: Runner, config: ServerConfig, memories: Memories) -> None:
        self.runner = runner
        self.config = config
        self.memories = memories
        self.metrics = Metrics()
        self.answers = Places(config.max_waiting, "answers")
        self.readings = Places(config.max_readings, "readings")
        # what takes long has threads of its own: the loop's few are for what is done at once
        self.reading_threads = ThreadPoolExecutor(2, "namm-llm reading")
        self.embedding_thread = ThreadPoolExecutor(1, "namm-llm embedding")

    def close(self) -> None:
        """End what goes on in the background."""
        self.memories.stop()
        for threads in (self.reading_threads, self.embedding_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def names(self) -> tuple[str, ...]:
        """What clients may call the model."""
        return (self.config.name, "default")

    @property
    def positions(self) -> int:
        """Most tokens of a prompt and its answer."""
        return self.runner.context_window or NO_LIMIT

    def check_model(self, name: str) -> None:
        """ApiError for a model that is not served."""
        if name not in self.names:
            message = f"there is no model {name!r}; this server has {' and '.join(self.names)}."
            raise ApiError(404, message, code="model_not_found", param="model")

    async def requests(
        self,
        http: HttpRequest,
        prompt: Prompt,
        params: SamplingParams,
        *,
        count: int = 1,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        memory: str | Sequence[str] | None = None,
    ) -> list[Request]:
        """One request for each of `count` answers; a given seed becomes one of each."""
        owner = http.state.owner
        about = await self._about(memory, owner)

        def make(at: int) -> Request:
            seed = None if params.seed is None else params.seed + at
            own = params.override({"seed": seed})
            if about is None:
                session = self.runner.session
                made = session.prompt_request(prompt, own, tools=tools, tool_choice=tool_choice)
            else:
                made = about.session.question_request(
                    about.cache, _question(prompt), own, tools=tools, tool_choice=tool_choice
                )
            return replace(made, owner=owner)

        # texts become tokens and schemas grammars, which takes a moment
        return await self.run(lambda: [make(at) for at in range(count)])

    async def _about(self, memory: str | Sequence[str] | None, owner: str) -> Document | None:
        names = [memory] if isinstance(memory, str) else list(memory or ())
        if not names:
            return None
        return await self.run(lambda: self._joined(names, owner))

    def _joined(self, names: Sequence[str], owner: str) -> Document:
        """One memory, or several one behind the other."""
        found = [self.memories.open(name, owner) for name in names]
        return found[0] if len(found) == 1 else self.runner.combine(found)

    @staticmethod
    async def run(function: Callable[[], T], threads: Executor | None = None) -> T:
        """What `function` returns in a thread, so that other clients are served meanwhile.

        threads: for what takes long; those of the event loop unless given.
        """
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def report(self, request: Request, generation: Generation) -> dict[str, object]:
        """The `namm` block of an answer: what the cache kept, and by which rule."""
        cache = generation.cache
        config = self.runner.session.config if request.memory is None else request.memory.config
        return {
            "policy": cache.policy,
            "budget": None if config.budget is None else str(config.budget),
            "kept_tokens": cache.stored_tokens,
            "seen_tokens": cache.seen_tokens,
            "bytes": cache.nbytes,
            "full_bytes": cache.full_nbytes,
        }


def _question(prompt: Prompt) -> str | Sequence[dict[str, object]]:
    if isinstance(prompt, str):
        return prompt
    messages = [dict(each) for each in prompt if not isinstance(each, int)]
    if len(messages) != len(prompt):
        raise UsageError("a memory is asked with a text or messages, not with token ids.")
    return messages
