"""`ChatNamm`: LangChain's chat model, with tools and structured output that cannot fail their
schema.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
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
from namm_integrations.call import Whole
from namm_integrations.threads import call_in_thread, in_thread

from langchain_namm.messages import answer_schema, metadata, to_openai, usage
from langchain_namm.profile import profile
from langchain_namm.settings import NammSettings
from langchain_namm.structured import structured
from namm_llm import Generation, ToolCall, ToolCallStream, canonical_tool_choice

Chunks = Iterator[ChatGenerationChunk]


class ChatNamm(NammSettings, BaseChatModel):
    """A chat model on `namm_llm`; all fields are those of `NammSettings`. Any number of threads and
    tasks may use it.
    """

    @property
    def _llm_type(self) -> str:
        return "namm-chat"

    # -- answers -----------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._answer(messages, stop, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await call_in_thread(lambda cancel: self._answer(messages, stop, kwargs, cancel))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Chunks:
        return self._chunks(messages, stop, kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in in_thread(lambda cancel: self._chunks(messages, stop, kwargs, cancel)):
            yield chunk

    def _answer(
        self, messages: list[BaseMessage], stop: Any, given: Any, cancel: Event | None = None
    ) -> ChatResult:
        *texts, last = self._pieces(messages, stop, given, cancel)
        assert isinstance(last, _End)
        message = AIMessage(
            content="".join([*map(str, texts), last.rest]),
            tool_calls=[tool_call(name=c.name, args=c.arguments, id=c.id) for c in last.calls],
            usage_metadata=usage(last.generation),
            response_metadata=last.metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=last.info)])

    def _chunks(
        self, messages: list[BaseMessage], stop: Any, given: Any, cancel: Event | None = None
    ) -> Chunks:
        for piece in self._pieces(messages, stop, given, cancel):
            if isinstance(piece, str):
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
                continue
            message = AIMessageChunk(
                content=piece.rest,
                tool_call_chunks=[_chunk(at, call) for at, call in enumerate(piece.calls)],
                usage_metadata=usage(piece.generation),
                response_metadata=piece.metadata,
                chunk_position="last",
            )
            yield ChatGenerationChunk(message=message, generation_info=piece.info)

    def _pieces(
        self, messages: list[BaseMessage], stop: Any, given: Any, cancel: Event | None
    ) -> Iterator[str | _End]:
        """The text of an answer as it can be shown, and what is known at its end."""
        given = dict(given)
        tools = [convert_to_openai_tool(tool) for tool in given.pop("tools", None) or ()]
        choice = canonical_tool_choice(given.pop("tool_choice", None))
        growing = ToolCallStream(
            [] if choice == "none" else tools,
            parallel=given.pop("parallel_tool_calls", None) is not False,
        )
        if (schema := answer_schema(given.pop("response_format", None))) is not None:
            given["json_schema"] = schema
        call = self._folded(given)._call(stop)
        for part in call.answer(to_openai(messages), cancel, tools=tools, tool_choice=choice):
            if isinstance(part, Whole):
                yield _End(part.generation, *growing.end())
            elif text := growing.feed(part.text):
                yield text

    # -- tools and structured output ---------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """tool_choice: `auto`, `none`, `any`, `required`, True, False, the name of a tool, or a
        mapping that names one; a forced call follows its tool's schema.
        """
        bound = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=bound, tool_choice=tool_choice, **kwargs)

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
        `function_calling` forces a call of a tool with it. OutputParserException for an answer that
        was cut.
        """
        return structured(self, schema, include_raw=include_raw, method=method, **kwargs)

    # -- what LangChain wants to know --------------------------------------------------------------

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of messages, tools and the memory, as the model sees them."""
        known = [convert_to_openai_tool(tool) for tool in tools or ()]
        return self._call().count_tokens(to_openai(messages), known)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(**self._tracing("chat", stop, kwargs))  # type: ignore[typeddict-item]

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        # settings of one call, which may be objects, are known by what they are
        left = {key: value for key, value in kwargs.items() if key != "response_format"}
        own = {name: left.pop(name) for name in list(left) if self._is_setting(name)}
        params = {**self._folded(own)._identifying_params, "_type": self._llm_type}
        schema = answer_schema(kwargs.get("response_format"))
        return {**params, "stop": self._stops(stop), "response_format": schema, **left}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """By which LangChain's caches keep answers."""
        return str(sorted(self._get_invocation_params(stop, **kwargs).items()))

    def _resolve_model_profile(self) -> Any:
        return profile(self.model, self.max_tokens, self.context_window, self.memory)


@dataclass(frozen=True)
class _End:
    """What is known of an answer at its end."""

    generation: Generation
    rest: str
    """Text that was held back because it could have been a call."""
    calls: list[ToolCall]

    @property
    def metadata(self) -> dict[str, Any]:
        return metadata(self.generation, "tool_calls" if self.calls else None)

    @property
    def info(self) -> dict[str, Any]:
        return {"finish_reason": self.metadata["finish_reason"]}


def _chunk(index: int, call: ToolCall) -> Any:
    args = json.dumps(call.arguments, ensure_ascii=False)
    return tool_call_chunk(name=call.name, args=args, id=call.id, index=index)
