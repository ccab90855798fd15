"""Requests as clients send them. A field that is not here is refused by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from namm_llm.config import SamplingParams
from namm_llm.errors import UsageError
from namm_llm.server import fields

Count = Annotated[int, Field(ge=1, le=16)]
Tokens = Annotated[int, Field(ge=1)]
Names = str | list[str]
Messages = Annotated[list[fields.ChatMessage], Field(min_length=1, fail_fast=True)]


class Body(fields.Strict):
    """The fields that every request may have."""

    model: str = "default"


class SamplingBody(Body):
    """The fields that say how an answer is written, under OpenAI's names and ours."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Names | None = None
    stop_loops: bool | None = None
    logit_bias: dict[int, float] | None = None
    memory: Names | None = None
    """Memories that the request is about, by name."""
    # what says who asks, or for what; it changes no answer
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None

    def sampling(self, defaults: SamplingParams, *, positions: int, **more: Any) -> SamplingParams:
        """The parameters of an answer. positions: most tokens, where the request names none."""
        names = (
            *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
            *("frequency_penalty", "seed", "stop", "stop_loops", "logit_bias"),
        )
        given = {name: getattr(self, name) for name in names}
        given = {name: value for name, value in {**given, **more}.items() if value is not None}
        return defaults.override({"max_tokens": positions, **given})


class StreamOptions(fields.Strict):
    """How an answer is streamed."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatBody(SamplingBody):
    """`/v1/chat/completions`."""

    model: str
    messages: Messages
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Count = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[fields.ChatTool] | None = None
    tool_choice: fields.Choice | fields.ChatChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: fields.ChatFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def params(self, defaults: SamplingParams, positions: int) -> SamplingParams:
        """As of `sampling`."""
        if self.top_logprobs and not self.logprobs:
            raise UsageError("top_logprobs needs logprobs: true.")
        return self.sampling(
            defaults,
            positions=positions,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            json_schema=fields.schema_of(self.response_format),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


class CompletionBody(SamplingBody):
    """`/v1/completions`."""

    model: str
    prompt: fields.Prompts
    max_tokens: Tokens | None = 16
    n: Count = 1
    echo: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    def params(self, defaults: SamplingParams, positions: int) -> SamplingParams:
        """As of `sampling`."""
        return self.sampling(
            defaults, positions=positions, max_tokens=self.max_tokens, logprobs=self.logprobs
        )


class ResponseBody(SamplingBody):
    """`/v1/responses`."""

    model: str
    input: str | Annotated[list[fields.InputItem], Field(min_length=1, fail_fast=True)]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: Tokens | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[fields.ResponseTool] | None = None
    tool_choice: fields.Choice | fields.ResponseChoice | None = None
    parallel_tool_calls: bool | None = None
    text: fields.TextOptions | None = None
    truncation: Literal["disabled"] | None = None
    include: Annotated[list[str], Field(max_length=0)] | None = None
    background: Literal[False] | None = None

    def params(self, defaults: SamplingParams, positions: int) -> SamplingParams:
        """As of `sampling`."""
        return self.sampling(
            defaults,
            positions=positions,
            max_tokens=self.max_output_tokens,
            json_schema=None if self.text is None else fields.schema_of(self.text.format),
        )


class EmbeddingBody(Body):
    """`/v1/embeddings`."""

    model: str
    input: fields.Prompts
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class TokenizeBody(Body):
    """`/tokenize`: a text as it stands, or messages through the chat template."""

    prompt: str | None = None
    messages: Messages | None = None


class DetokenizeBody(Body):
    """`/detokenize`."""

    tokens: Annotated[list[int], Field(fail_fast=True)]


class MemoryBody(fields.Strict):
    """`/v1/memories`: a text to read."""

    name: fields.Name
    text: fields.Name
