"""`ChatTemplate`: conversations as the text that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, zip_longest
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from namm_llm.errors import ModelError, UsageError
from namm_llm.models.messages import (
    GAP,
    Message,
    in_turn,
    plain_message,
    spelled_out,
    text_of,
    with_system,
)
from namm_llm.models.tools import Tool, ToolCall, describe_tools
from namm_llm.models.vision.parts import MARK, parts_of

# what a conversation is rendered with, to see what the template makes of it
_RESULT, _REST = "RESULTxGOESxHERE", "RESTxGOESxHERE"
_SAMPLE = "SAMPLExTOOL"
_SAMPLE_TOOL = {
    "type": "function",
    "function": {
        "name": _SAMPLE,
        "description": "x",
        "parameters": {"type": "object", "properties": {}},
    },
}
_SAMPLE_CALL: list[dict[str, Any]] = [
    {"role": "assistant", "content": "", "tool_calls": [ToolCall(_SAMPLE, {}).to_openai()]},
    {"role": "tool", "content": _RESULT, "tool_call_id": "call_1", "name": _SAMPLE},
]


class ChatTemplate:
    """The chat template of one tokenizer, and what it can show."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model_id: str, image: str | None = None
    ) -> None:
        """image: what it writes for a picture, where the model sees."""
        self._tokenizer = tokenizer
        self._image = image
        self._model_id = model_id

    @property
    def is_there(self) -> bool:
        """Whether the model takes messages."""
        return bool(self._tokenizer.chat_template)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The text of a conversation, up to where the assistant goes on.

        tools: what the model may call; put into a system message if the chat template does not show
        them.
        """
        if not self.is_there:
            raise ModelError(
                f"{self._model_id} has no chat template, so it cannot take messages; give it plain "
                "text, or use a model whose tokenizer has a chat template (most with Instruct in "
                "their names)."
            )
        if not messages:
            raise UsageError("there are no messages to answer.")
        plain = [plain_message(message) for message in messages]
        if not self._shows_calls:
            plain = [spelled_out(message) for message in plain]
        if tools and not self._shows_tools:
            plain, tools = with_system(plain, describe_tools(tools)), ()
        try:
            return self._rendered(plain, tools)
        except TemplateError as error:
            try:  # many templates want user and assistant in turn, some know no system message
                return self._rendered(in_turn(plain), tools)
            except TemplateError:
                raise UsageError(
                    f"the chat template of {self._model_id} does not take these messages: {error}."
                ) from error

    def render_open(self, messages: Sequence[Message]) -> str:
        """The same up to the end of the last message, which will be gone on with after an empty
        line.
        """
        last = {**messages[-1], "content": f"{text_of(messages[-1]['content'])}{GAP}{_REST}"}
        text, found, _ = self.render([*messages[:-1], last]).rpartition(GAP + _REST)
        if not found:
            raise ModelError(
                f"the chat template of {self._model_id} changes messages, so a message cannot be "
                "read before it is whole."
            )
        return text

    def _rendered(self, messages: list[dict[str, Any]], tools: Sequence[Tool] = ()) -> str:
        known: list[Any] | None = [dict(tool) for tool in tools] or None
        if self._image is not None:
            return self._rendered_with_pictures(messages, self._image, known)
        text = self._tokenizer.apply_chat_template(
            messages, tools=known, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def _rendered_with_pictures(
        self, messages: list[dict[str, Any]], image: str, tools: list[Any] | None
    ) -> str:
        """The same where the model sees: its template wants parts, and writes `image` for each
        picture; the marks take those places.
        """
        parted = [{**each, "content": parts_of(each["content"])} for each in messages]
        marks = [mark[0] for each in messages for mark in MARK.finditer(each["content"])]
        text = self._tokenizer.apply_chat_template(
            parted, tools=tools, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        pieces = text.split(image)
        if len(pieces) != len(marks) + 1:
            raise UsageError(
                f"the chat template of {self._model_id} shows {len(pieces) - 1} pictures where the "
                f"messages hold {len(marks)}; {image} in a text stands for a picture."
            )
        return "".join(chain.from_iterable(zip_longest(pieces, marks, fillvalue="")))

    @cached_property
    def _shows_tools(self) -> bool:
        """Whether the chat template tells the model of tools."""
        return self._shows([{"role": "user", "content": "x"}], [_SAMPLE_TOOL])

    @cached_property
    def _shows_calls(self) -> bool:
        """Whether the chat template writes the calls of an assistant's message, and the tool's
        answers.
        """
        return self._shows([{"role": "user", "content": "x"}, *_SAMPLE_CALL])

    def _shows(self, messages: list[dict[str, Any]], tools: Sequence[Tool] = ()) -> bool:
        try:
            text = self._rendered(messages, tools)
        except (TemplateError, TypeError):
            return False
        return _SAMPLE in text and (bool(tools) or _RESULT in text)
