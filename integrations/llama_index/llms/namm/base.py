"""`NammLLM`: LlamaIndex's eight endpoints over one runner.

Every endpoint is one of two sync generators, `_completions` and `_chats`: a whole answer is their
last response, the async ones run them in a thread. Only the outer methods carry LlamaIndex's
callbacks, so nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.llms.namm import responses
from llama_index.llms.namm.configured import CALL_SETTINGS, ConfiguredLLM, is_default
from llama_index.llms.namm.messages import to_messages, with_system_prompt
from llama_index.llms.namm.structured import ConstrainedLLM
from llama_index.llms.namm.tools import growing_with_tools
from namm_integrations.call import Call, Prompt, RenderedPrompt, Whole
from namm_integrations.settings import canonical
from namm_integrations.threads import in_thread

from namm_llm import ToolCallStream, UsageError, canonical_tool_choice

if TYPE_CHECKING:
    from threading import Event

    from llama_index.core.tools import BaseTool

    from namm_llm import Generation, Piece

TOOLS = ("tools", "tool_choice", "allow_parallel_tool_calls")
Given = Mapping[str, Any]
R = TypeVar("R", CompletionResponse, ChatResponse)


class NammLLM(ConfiguredLLM, ConstrainedLLM, FunctionCallingLLM, CustomLLM):
    """A local model whose cache evicts. Nothing is loaded before the first call; the same weights
    are loaded once in a process.

    Every setting can be changed for one call: `llm.complete("...", temperature=0.7, budget=0.25)`.
    None is the library's default, see `namm_llm.Runner.load` and `namm_llm.SamplingParams`. An
    unknown name is an error, here and in a call.

    memory: a document read before (`runner.read(...)`, or the file of its `save`); every prompt is
    then a question about it. context_window: what LlamaIndex may fill, if less than what the model
    was trained on.
    """

    # -- the eight endpoints -----------------------------------------------------------------------

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer. formatted: go on from the prompt as it stands, without the chat
        template.
        """
        return _last(self._completions(prompt, formatted, self._given(kwargs)))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """The answer while it is written; the last response carries the numbers."""
        return self._completions(prompt, formatted, self._given(kwargs))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """As `complete`; cancelling it stops the model."""
        return await _alast(
            in_thread(partial(self._completions, prompt, formatted, self._given(kwargs)))
        )

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """As `stream_complete`; closing it stops the model."""
        return in_thread(partial(self._completions, prompt, formatted, self._given(kwargs)))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        return _last(self._chats(messages, self._given(kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer while it is written; the last response carries the numbers."""
        return self._chats(messages, self._given(kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """As `chat`; cancelling it stops the model."""
        return await _alast(in_thread(partial(self._chats, messages, self._given(kwargs))))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """As `stream_chat`; closing it stops the model."""
        return in_thread(partial(self._chats, messages, self._given(kwargs)))

    # -- tools -------------------------------------------------------------------------------------

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `chat` is called with. tool_choice: auto, none, required, any, or the name of a
        tool; goes before `tool_required`.
        """
        messages = list(chat_history or [])  # a copy: the history is the caller's
        if user_msg is not None:
            messages.append(
                ChatMessage(role=MessageRole.USER, content=user_msg)
                if isinstance(user_msg, str)
                else user_msg
            )
        return {
            "messages": messages,
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": tool_choice or ("required" if tool_required else "auto"),
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tools that the model calls. ValueError if it calls none."""
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(
                f"the model called no tool, it wrote: {(response.message.content or '')[:200]!r}"
            )
        return [
            ToolSelection(
                tool_id=call.tool_call_id or call.tool_name,
                tool_name=call.tool_name,
                tool_kwargs=call.tool_kwargs,
            )
            for call in calls
        ]

    # -- one answer --------------------------------------------------------------------------------

    def _completions(
        self, prompt: str, formatted: bool, given: Given, cancel: Event | None = None
    ) -> CompletionResponseGen:
        call = self._call(given)
        asked = self._completion_prompt(prompt, formatted, call)
        return _growing(call.answer(asked, cancel), responses.completion)

    def _chats(
        self, messages: Sequence[ChatMessage], given: Given, cancel: Event | None = None
    ) -> ChatResponseGen:
        given = dict(given)
        tools = given.pop("tools", None) or []
        choice = canonical_tool_choice(given.pop("tool_choice", None))
        parallel = given.pop("allow_parallel_tool_calls", True)
        call = self._call(given)
        asked = self._chat_prompt(messages, call)
        if not tools:
            return _growing(call.answer(asked, cancel), responses.chat)
        growing = ToolCallStream([] if choice == "none" else tools, parallel=parallel)
        answer = call.answer(asked, cancel, tools=tools, tool_choice=choice)
        return growing_with_tools(answer, growing, responses.chat)

    def _completion_prompt(self, prompt: str, formatted: bool, call: Call) -> Prompt:
        is_ours = is_default(self.completion_to_prompt)
        if formatted:
            if call.memory is not None and not isinstance(prompt, RenderedPrompt):
                raise UsageError(
                    "a formatted prompt begins a text and cannot follow a memory; leave out "
                    "formatted=True, and the question goes through the chat template."
                )
            return prompt
        if self.query_wrapper_prompt is not None:
            prompt = self.query_wrapper_prompt.format(query_str=prompt)
        if is_ours and call.runner.has_chat_template:
            return self._chat_prompt([ChatMessage(role=MessageRole.USER, content=prompt)], call)
        instructed = f"{self.system_prompt}\n\n{prompt}" if self.system_prompt else prompt
        return instructed if is_ours else self.completion_to_prompt(instructed)

    def _chat_prompt(self, messages: Sequence[ChatMessage], call: Call) -> Prompt:
        instructed = with_system_prompt(messages, self.system_prompt)
        if is_default(self.messages_to_prompt) and call.runner.has_chat_template:
            return to_messages(instructed)
        return self.messages_to_prompt(instructed)

    def _given(self, given: dict[str, Any]) -> Given:
        """The settings of one call under their own names. UsageError for an unknown one."""
        return canonical(given, (*CALL_SETTINGS, *TOOLS), "a call of NammLLM")


def _growing(
    answer: Iterator[Piece | Whole], respond: Callable[[str, str, Generation | None], R]
) -> Generator[R, None, None]:
    """A response for each piece of the answer, and one with the whole result."""
    text = ""
    for part in answer:
        if isinstance(part, Whole):
            yield respond(text, "", part.generation)
        else:
            text += part.text
            yield respond(text, part.text, None)


def _last(found: Iterator[R]) -> R:
    *_, last = found
    last.delta = None
    return last


async def _alast(found: AsyncGenerator[R, None]) -> R:
    *_, last = [response async for response in found]
    last.delta = None
    return last
