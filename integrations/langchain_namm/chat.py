"""`ChatNamm`: LangChain's chat model, with tools and structured output that cannot fail their
schema.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_namm.answering import Session, apieces, pieces
from langchain_namm.messages import to_openai, tool_choice
from langchain_namm.profile import profile
from langchain_namm.reporting import metadata, usage
from langchain_namm.settings import NammSettings
from langchain_namm.structured import structured
from langchain_namm.visible import Visible
from namm_llm import Generation, Stream, ToolCall, parse_tool_calls


class ChatNamm(NammSettings, BaseChatModel):
    """A chat model on `namm_llm`; all fields are those of `NammSettings`. Any number of threads and
    tasks may use it.
    """

    @property
    def _llm_type(self) -> str:
        return "namm-chat"

    # -- answers -----------------------------------------------------------------------------------
    # ---------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        stream, tools = self._open(messages, stop, kwargs)
        for _ in pieces(stream):
            pass
        return _result(stream.result, tools)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        stream, tools = await asyncio.to_thread(self._open, messages, stop, kwargs)
        async for _ in apieces(stream):
            pass
        return _result(stream.result, tools)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream, tools = self._open(messages, stop, kwargs)
        visible = Visible(bool(tools))
        for piece in pieces(stream):
            if text := visible.feed(piece.text):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        yield _last(stream.result, visible, tools)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        stream, tools = await asyncio.to_thread(self._open, messages, stop, kwargs)
        visible = Visible(bool(tools))
        async for piece in apieces(stream):
            if text := visible.feed(piece.text):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        yield _last(stream.result, visible, tools)

    def _open(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> tuple[Stream, list[dict[str, Any]]]:
        given = dict(given)
        tools = [convert_to_openai_tool(tool) for tool in given.pop("tools", None) or ()]
        choice = tool_choice(
            given.pop("tool_choice", None), [tool["function"]["name"] for tool in tools]
        )
        answering: Session = self._folded(given)._answering(stop)
        stream = answering.stream(to_openai(messages), tools=tools, tool_choice=choice)
        return stream, [] if choice == "none" else tools

    # -- tools and structured output ---------------------------------------------------------------
    # -----------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """tool_choice: `auto`, `none`, `any`, `required`, True, the name of a tool, or a mapping
        that names one; a forced call follows its tool's schema.
        """
        return self.bind(
            tools=[convert_to_openai_tool(tool) for tool in tools],
            tool_choice=tool_choice,
            **kwargs,
        )

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """method: `json_schema` and `json_mode` constrain the answer to the schema,
        `function_calling` forces a call of a tool with it.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return structured(self, schema, include_raw=include_raw, method=method, **kwargs)

    # -- what LangChain wants to know --------------------------------------------------------------
    # ---------------------------------

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of messages, and of tools, as the model reads them through its chat template."""
        known = [convert_to_openai_tool(tool) for tool in tools or ()]
        return self._answering(None).runner.count_tokens(to_openai(messages), known)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(**self._tracing("chat", stop, kwargs))  # type: ignore[typeddict-item]

    def _resolve_model_profile(self) -> Any:
        return profile(self.model, self.max_tokens)


def _result(generation: Generation, tools: list[dict[str, Any]]) -> ChatResult:
    visible = Visible(bool(tools))
    text = visible.feed(generation.text)
    rest, calls = parse_tool_calls(visible.held, tools)
    info = metadata(generation, "tool_calls" if calls else None)
    message = AIMessage(
        content=text + rest,
        tool_calls=[tool_call(name=call.name, args=call.arguments, id=call.id) for call in calls],
        usage_metadata=usage(generation),
        response_metadata=info,
    )
    return ChatResult(
        generations=[
            ChatGeneration(
                message=message, generation_info={"finish_reason": info["finish_reason"]}
            )
        ]
    )


def _last(
    generation: Generation, visible: Visible, tools: list[dict[str, Any]]
) -> ChatGenerationChunk:
    rest, calls = parse_tool_calls(visible.held, tools)
    info = metadata(generation, "tool_calls" if calls else None)
    message = AIMessageChunk(
        content=rest,
        tool_call_chunks=[_call_chunk(index, call) for index, call in enumerate(calls)],
        usage_metadata=usage(generation),
        response_metadata=info,
        chunk_position="last",
    )
    return ChatGenerationChunk(
        message=message, generation_info={"finish_reason": info["finish_reason"]}
    )


def _call_chunk(index: int, call: ToolCall) -> Any:
    return tool_call_chunk(
        name=call.name, args=json.dumps(call.arguments, ensure_ascii=False), id=call.id, index=index
    )
