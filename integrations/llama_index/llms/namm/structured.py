"""Structured prediction by constrained decoding: the model can write nothing but JSON that fits the
class.

LlamaIndex's own way asks for a tool call or looks for JSON in free text; this one leaves nothing to
look for. The prompt stays as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.bridge.pydantic import BaseModel, ValidationError
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictInProgressEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import FlexibleModel, process_streaming_objects
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode

from namm_llm import UsageError

Model = TypeVar("Model", bound=BaseModel)
dispatcher = get_dispatcher(__name__)


class ConstrainedLLM(LLM):
    """An LLM whose `chat` takes `json_schema`. Another `pydantic_program_mode` than the default
    goes LlamaIndex's own way.
    """

    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An object of the class. UsageError if `max_tokens` is not enough for it."""
        if not self._constrains:
            return super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _started(output_cls, prompt, prompt_args)
        response = self.chat(
            self._get_messages(prompt, **prompt_args), **_constrained(output_cls, llm_kwargs)
        )
        return _ended(_whole(output_cls, response))

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """As `structured_predict`."""
        if not self._constrains:
            return await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        _started(output_cls, prompt, prompt_args)
        response = await self.achat(
            self._get_messages(prompt, **prompt_args), **_constrained(output_cls, llm_kwargs)
        )
        return _ended(_whole(output_cls, response))

    @dispatcher.span
    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Model | FlexibleModel, None, None]:
        """What is known of the object so far, growing; at last the object."""
        if not self._constrains:
            yield from super().stream_structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return
        _started(output_cls, prompt, prompt_args)
        growing = _Growing(output_cls)
        for response in self.stream_chat(
            self._get_messages(prompt, **prompt_args), **_constrained(output_cls, llm_kwargs)
        ):
            if (known := growing.feed(response)) is not None:
                yield known
        yield growing.end()

    @dispatcher.span
    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Model | FlexibleModel, None]:
        """As `stream_structured_predict`."""
        if not self._constrains:
            return await super().astream_structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )

        async def objects() -> AsyncGenerator[Model | FlexibleModel, None]:
            _started(output_cls, prompt, prompt_args)
            growing = _Growing(output_cls)
            options = _constrained(output_cls, llm_kwargs)
            async for response in await self.astream_chat(
                self._get_messages(prompt, **prompt_args), **options
            ):
                if (known := growing.feed(response)) is not None:
                    yield known
            yield growing.end()

        return objects()

    @property
    def _constrains(self) -> bool:
        return self.pydantic_program_mode == PydanticProgramMode.DEFAULT


class _Growing:
    """The object while its JSON grows."""

    def __init__(self, output_cls: type[Model]) -> None:
        self._output_cls = output_cls
        self._objects: list[Any] | None = None
        self._last = ChatResponse(message={"role": "assistant"})

    def feed(self, response: ChatResponse) -> Any:
        """What the JSON so far says; None for the response that brings the numbers and no text."""
        self._last = response
        if not response.delta:
            return None
        found = process_streaming_objects(response, self._output_cls, cur_objects=self._objects)
        self._objects = [found]
        dispatcher.event(LLMStructuredPredictInProgressEvent(output=found))
        return found

    def end(self) -> Any:
        """The object."""
        return _ended(_whole(self._output_cls, self._last))


def _constrained(output_cls: type[BaseModel], llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    return {**(llm_kwargs or {}), "json_schema": output_cls.model_json_schema()}


def _whole(output_cls: type[Model], response: ChatResponse) -> Model:
    try:
        return output_cls.model_validate_json(response.message.content or "")
    except ValidationError as error:
        if response.raw and response.raw["finish_reason"] != "length":
            raise  # a check of the class that a schema cannot say
        tokens = response.raw["usage"]["completion_tokens"] if response.raw else 0
        raise UsageError(
            f"the answer was cut after {tokens} tokens, within the {output_cls.__name__}; give it "
            "a larger max_tokens."
        ) from error


def _started(
    output_cls: type[BaseModel], prompt: BasePromptTemplate, prompt_args: dict[str, Any]
) -> None:
    dispatcher.event(
        LLMStructuredPredictStartEvent(
            output_cls=output_cls, template=prompt, template_args=prompt_args
        )
    )


def _ended(output: Model) -> Model:
    dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output
