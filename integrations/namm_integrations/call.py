"""`Call`: who answers one question, and how; the numbers of its answer. The same for all classes of
both adapters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from namm_integrations.memories import is_document
from namm_integrations.runners import RunnerPool
from namm_integrations.settings import CACHE, LOAD, SAMPLING, given
from namm_llm import NammError, SamplingParams, UsageError

if TYPE_CHECKING:  # these import torch, which takes seconds
    from namm_llm import Document, Generation, Piece, Runner

Prompt = str | Sequence[dict[str, Any]]


class AnswerTimeout(NammError, TimeoutError):
    """The answer took longer than `timeout`."""


class RenderedPrompt(str):
    """The text of a conversation, which knows its messages: a memory is asked with those."""

    messages: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, text: str, messages: Sequence[dict[str, Any]]) -> RenderedPrompt:
        """The text that the chat template makes of the messages."""
        prompt = cls(text)
        prompt.messages = messages
        return prompt


@dataclass(frozen=True)
class Whole:
    """The last thing that an answer yields."""

    generation: Generation


@dataclass(frozen=True)
class _Deadline:
    """A cancel flag that is also set when the time is over."""

    at: float
    cancel: threading.Event | None

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def is_set(self) -> bool:
        return self.passed or (self.cancel is not None and self.cancel.is_set())


@dataclass(frozen=True)
class Call:
    """One call of a model object: who answers, and with which sampling parameters."""

    runner: Runner
    params: SamplingParams
    memory: Document | None
    """What the question is about."""
    timeout: float | None
    """Seconds after which `AnswerTimeout` is raised; None for no limit."""

    @classmethod
    def of(cls, pool: RunnerPool, values: Mapping[str, Any]) -> Call:
        """For these settings, by name; loads the model if need be. UsageError for settings that do
        not go together.
        """
        memory = values.get("memory")
        sampling = given(values, SAMPLING)
        if "json_schema" in sampling:  # which says where the answer ends
            sampling.pop("stop", None)
        params, timeout = SamplingParams(**sampling), values.get("timeout")
        if memory is not None and is_document(memory):
            from namm_llm import Runner

            if cache := given(values, CACHE):
                raise UsageError(
                    f"{next(iter(cache))} is a setting of the memory's own runner; leave it out, "
                    "or read the document with it."
                )
            return cls(Runner(memory.session), params, memory, timeout)
        settings = given(values, (*LOAD, *CACHE))
        return cls(pool.runner(settings), params, pool.memory(settings, memory), timeout)

    def answer(
        self, prompt: Prompt, cancel: threading.Event | None = None, **tools: Any
    ) -> Iterator[Piece | Whole]:
        """The pieces of the answer to a text or to messages, and the whole at last. Leaving early
        stops the model. tools: `tools` and `tool_choice`.
        """
        deadline = self._deadline(cancel)
        asked: Any = self.runner if self.memory is None else self.memory
        with asked.stream(self._prompt(prompt), self.params, cancel=deadline, **tools) as pieces:
            yield from pieces
        self._check(deadline, [pieces.result])
        yield Whole(pieces.result)

    def batch(
        self, prompts: Sequence[str], cancel: threading.Event | None = None
    ) -> list[Generation]:
        """The answers to several texts, decoded together."""
        deadline = self._deadline(cancel)
        asked = [self._prompt(prompt) for prompt in prompts]
        if self.memory is not None:
            found = list(self.memory.ask_many(asked, self.params, cancel=deadline))
        else:
            found = self.runner.generate_batch(asked, self.params, cancel=deadline)
        self._check(deadline, found)
        return found

    def count_tokens(self, prompt: Prompt, tools: Sequence[Mapping[str, Any]] = ()) -> int:
        """Tokens that the model sees of a prompt, those of the memory included."""
        if self.memory is None:
            return self.runner.count_tokens(prompt, tools)
        question = self._prompt(prompt)
        before = len(self.runner.document_starts(""))
        own = self.runner.document_tokens("", question) - before
        return own + int(self.memory.info()["seen_tokens"])

    @property
    def window(self) -> int | None:
        """Tokens that prompt and answer may have together; None for no limit."""
        owner = self.runner.session if self.memory is None else self.memory.cache
        if owner.reads_any_length:
            return None
        positions = self.runner.context_window
        if positions is None or self.memory is None:
            return positions
        return positions - int(self.memory.info()["seen_tokens"])

    def _prompt(self, prompt: Prompt) -> Any:
        """A memory is asked with messages, so that its chat template is gone through once."""
        is_rendered = isinstance(prompt, RenderedPrompt) and self.memory is not None
        return prompt.messages if is_rendered else prompt

    def _deadline(self, cancel: threading.Event | None) -> _Deadline:
        seconds = float("inf") if self.timeout is None else self.timeout
        return _Deadline(time.monotonic() + seconds, cancel)

    def _check(self, deadline: _Deadline, found: Sequence[Generation]) -> None:
        if deadline.passed and any(each.finish_reason == "cancelled" for each in found):
            raise AnswerTimeout(
                f"the answer was given up after {self.timeout:g} s; give it a larger timeout."
            )


def logprobs_of(generation: Generation) -> dict[str, Any]:
    """`logprobs` as OpenAI's chat completions have them, if the call asked for them; or nothing."""
    if generation.logprobs is None:
        return {}
    return {"logprobs": {"content": [each.to_openai() for each in generation.logprobs]}}


def numbers_of(generation: Generation) -> dict[str, Any]:
    """The numbers of an answer, ready for JSON.

    Those of `CacheStats` and `Timings`, `evicted_tokens` (mean over layers and KV heads),
    `tokens_per_second` of decoding (None if nothing was decoded), and `closed_early`.
    """
    cache, timings = asdict(generation.cache), asdict(generation.timings)
    # the first token comes with the prefill
    decoded, seconds = max(generation.usage.output_tokens - 1, 0), timings["decode_seconds"]
    return {
        "closed_early": generation.closed_early,
        **cache,
        "evicted_tokens": cache["seen_tokens"] - cache["stored_tokens"],
        **timings,
        "tokens_per_second": decoded / seconds if seconds > 0 else None,
    }
