"""`NammLLM`: text in, text out, for LangChain's completion chains. Chat prompts go through the
model's own template.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import LLM
from langchain_core.messages import BaseMessage
from langchain_core.outputs import Generation as Output
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue

from langchain_namm.answering import apieces, in_thread, pieces
from langchain_namm.messages import to_openai
from langchain_namm.reporting import metadata, usage
from langchain_namm.settings import NammSettings
from namm_llm import Generation, Stream


class NammLLM(NammSettings, LLM):
    """A language model on `namm_llm`; all fields are those of `NammSettings`. `batch` decodes its
    prompts together.
    """

    @property
    def _llm_type(self) -> str:
        return "namm-llm"

    # -- settings of one call belong to what answers are kept by
    # --------------------------------------------------------------------

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

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        value = super()._convert_input(model_input)
        if not isinstance(value, ChatPromptValue):
            return value
        runner = self._answering(None).runner
        return (
            StringPromptValue(text=runner.render_chat(to_openai(value.to_messages())))
            if runner.has_chat_template
            else value
        )

    # -- answers -----------------------------------------------------------------------------------
    # ---------------------------------

    def _call(
        self, prompt: str, stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> str:
        return self._generate([prompt], stop, run_manager, **kwargs).generations[0][0].text

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
        return await in_thread(self._answers, prompts, stop, kwargs)  # type: ignore[no-any-return]

    def _answers(
        self,
        prompts: list[str],
        stop: list[str] | None,
        given: dict[str, Any],
        cancel: threading.Event | None = None,
    ) -> LLMResult:
        found = self._folded(given)._answering(stop).batch(prompts, cancel)
        return LLMResult(
            generations=[[Output(text=one.text, generation_info=_info(one))] for one in found],
            llm_output=_totals(found),
        )

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        stream = self._open(prompt, stop, kwargs)
        for piece in pieces(stream):
            chunk = GenerationChunk(text=piece.text)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
        yield GenerationChunk(text="", generation_info=_info(stream.result))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        stream = await asyncio.to_thread(self._open, prompt, stop, kwargs)
        async for piece in apieces(stream):
            chunk = GenerationChunk(text=piece.text)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
        yield GenerationChunk(text="", generation_info=_info(stream.result))

    def _open(self, prompt: str, stop: list[str] | None, given: dict[str, Any]) -> Stream:
        return self._folded(given)._answering(stop).stream(prompt)

    # -- what LangChain wants to know --------------------------------------------------------------
    # ---------------------------------

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        """Tokens of messages as the model reads them."""
        return self._answering(None).runner.count_tokens(self._convert_input(messages).to_string())

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(**self._tracing("llm", stop, kwargs))  # type: ignore[typeddict-item]


def _info(generation: Generation) -> dict[str, Any]:
    return {**metadata(generation), "usage": usage(generation)}


def _totals(generations: list[Generation]) -> dict[str, Any]:
    read = sum(one.usage.input_tokens for one in generations)
    written = sum(one.usage.output_tokens for one in generations)
    total = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {"token_usage": total, "model_name": generations[0].model if generations else None}
