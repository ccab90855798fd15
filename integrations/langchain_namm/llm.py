"""`NammLLM`: text in, text out, for LangChain's completion chains. Chat prompts go through the
model's own template.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import LLM
from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation as Output
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.runnables import Runnable
from namm_integrations.call import RenderedPrompt, Whole
from namm_integrations.threads import call_in_thread, in_thread
from typing_extensions import Self

from langchain_namm.messages import metadata, to_openai, usage
from langchain_namm.settings import NammSettings
from langchain_namm.structured import structured_text
from namm_llm import Generation, UsageError


class NammLLM(NammSettings, LLM):
    """A language model on `namm_llm`; all fields are those of `NammSettings`. `batch` decodes its
    prompts together.
    """

    @property
    def _llm_type(self) -> str:
        return "namm-llm"

    # -- settings of one call belong to what answers are kept by -----------------------------------

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As of LangChain; the settings among `kwargs` are those of a copy, because LangChain keeps
        answers by the fields alone.
        """
        return LLM.generate(self._folded(kwargs), prompts, stop, callbacks, **kwargs)

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As `generate`."""
        return await LLM.agenerate(self._folded(kwargs), prompts, stop, callbacks, **kwargs)

    def _folded(self, given: dict[str, Any]) -> Self:
        if given.get("tools"):
            raise UsageError("NammLLM takes no tools; bind them to a ChatNamm.")
        return super()._folded(given)

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        value = super()._convert_input(model_input)
        if not isinstance(value, ChatPromptValue) or not self._call().runner.has_chat_template:
            return value
        return _Rendered(text=self._rendered(value.to_messages()))

    def _rendered(self, messages: list[BaseMessage]) -> RenderedPrompt:
        told = to_openai(messages)
        return RenderedPrompt.of(self._call().runner.render_chat(told), told)

    # -- answers -----------------------------------------------------------------------------------

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return self._answers(prompts, stop, kwargs)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return await call_in_thread(lambda cancel: self._answers(prompts, stop, kwargs, cancel))

    def _answers(
        self, prompts: list[str], stop: Any, given: Any, cancel: Event | None = None
    ) -> LLMResult:
        found = self._folded(dict(given))._call(stop).batch(prompts, cancel)
        outputs = [[Output(text=one.text, generation_info=_info(one))] for one in found]
        return LLMResult(generations=outputs, llm_output=_totals(found))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        for chunk in self._chunks(prompt, stop, kwargs):
            if run_manager and chunk.text:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async for chunk in in_thread(lambda cancel: self._chunks(prompt, stop, kwargs, cancel)):
            if run_manager and chunk.text:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _chunks(
        self, prompt: str, stop: Any, given: Any, cancel: Event | None = None
    ) -> Iterator[GenerationChunk]:
        for part in self._folded(dict(given))._call(stop).answer(prompt, cancel):
            if isinstance(part, Whole):
                yield GenerationChunk(text="", generation_info=_info(part.generation))
            else:
                yield GenerationChunk(text=part.text)

    def with_structured_output(
        self, schema: dict[str, Any] | type, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Objects of a pydantic class, or mappings. OutputParserException for an answer that was
        cut.
        """
        return structured_text(self, schema, **kwargs)

    # -- what LangChain wants to know --------------------------------------------------------------

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of messages and the memory, as the model sees them."""
        call = self._call()
        if not call.runner.has_chat_template:
            return call.count_tokens(self._convert_input(messages).to_string())
        return call.count_tokens(to_openai(messages))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(**self._tracing("llm", stop, kwargs))  # type: ignore[typeddict-item]


class _Rendered(StringPromptValue):
    """A conversation as the model reads it, which knows its messages."""

    text: Any

    def to_string(self) -> str:
        return self.text  # type: ignore[no-any-return]


def _info(generation: Generation) -> dict[str, Any]:
    return {**metadata(generation), "usage": usage(generation)}


def _totals(generations: list[Generation]) -> dict[str, Any]:
    read = sum(one.usage.input_tokens for one in generations)
    written = sum(one.usage.output_tokens for one in generations)
    total = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {"token_usage": total, "model_name": generations[0].model if generations else None}
