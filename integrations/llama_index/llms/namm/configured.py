"""`ConfiguredLLM`: the settings of a `NammLLM`, what they say about the model, and how they are
saved; it answers nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.llms.generic_utils import messages_to_prompt as plain_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.llms.llm import LLM, CompletionToPromptCallable, MessagesToPromptCallable
from llama_index.llms.namm.messages import to_messages
from namm_integrations import settings
from namm_integrations.call import Call, RenderedPrompt
from namm_integrations.memories import is_document
from namm_integrations.runners import RunnerPool
from namm_integrations.settings import NammFields

from namm_llm import UsageError

if TYPE_CHECKING:
    from namm_llm import Runner

CALL_SETTINGS = (*settings.SETTINGS, "memory", "timeout")
_NOT_SAVED = ("callback_manager", "rate_limiter")  # they belong to the running program


class ConfiguredLLM(NammFields, LLM):
    """All settings of `namm_llm` as fields; None is the library's default.

    Raises UsageError for an unknown name or a value that cannot be right.
    """

    is_function_calling_model: bool | None = Field(
        default=None, description="Whether tools are offered; by default, to a chat model."
    )

    # as LlamaIndex declares them; ours are methods, which would print the LLM within the LLM
    messages_to_prompt: MessagesToPromptCallable = Field(default=None, exclude=True, repr=False)
    completion_to_prompt: CompletionToPromptCallable = Field(default=None, exclude=True, repr=False)

    _runners: RunnerPool = PrivateAttr(default_factory=RunnerPool)

    def __init__(self, model: str | os.PathLike[str] | None = None, **given: Any) -> None:
        if model is not None:
            given["model"] = model
        own = settings.canonical(given, type(self).model_fields, "NammLLM")
        settings.check(own)
        is_document(own.get("memory"))
        super().__init__(**own)
        if own.get("messages_to_prompt") is None:
            self.messages_to_prompt = self._chat_text
        if own.get("completion_to_prompt") is None:
            self.completion_to_prompt = self._completion_text

    # -- what it is --------------------------------------------------------------------------------

    @classmethod
    def class_name(cls) -> str:
        return "NammLLM"

    @property
    def runner(self) -> Runner:
        """The runner of the LLM's own settings; the first look loads the model."""
        return self._call().runner

    @property
    def metadata(self) -> LLMMetadata:
        """Of the model, so the first look loads it. A document memory takes its tokens from the
        context window.
        """
        call = self._call()
        window = min(call.window or sys.maxsize, self.context_window or sys.maxsize)
        is_chat, calls = call.runner.has_chat_template, self.is_function_calling_model
        return LLMMetadata(
            context_window=window,
            num_output=call.params.max_tokens,
            is_chat_model=is_chat,
            is_function_calling_model=is_chat if calls is None else calls,
            model_name=call.runner.model_id,
        )

    def to_payload(self) -> dict[str, Any]:
        """For LlamaIndex's events: the settings that differ from the defaults, as plain values.
        Loads nothing, as async calls look at it too.
        """
        values = {name: getattr(self, name) for name in settings.SETTINGS}
        chosen = settings.given(values, settings.SETTINGS)
        return {
            "class_name": self.class_name(),
            "model_name": self.model,
            **{name: settings.of_setting(name, value) for name, value in chosen.items()},
        }

    # -- tokens ------------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """The model's own token ids of a text."""
        return self.runner.encode(text)

    def set_as_global_tokenizer(self) -> None:
        """Make LlamaIndex count with this model's tokenizer when it cuts and packs texts (its
        default is GPT's).
        """
        Settings.tokenizer = self.tokenize

    # -- calls -------------------------------------------------------------------------------------

    def _call(self, given: Mapping[str, Any] | None = None) -> Call:
        """The LLM's own settings, with those of one call in their place."""
        own = {name: getattr(self, name) for name in CALL_SETTINGS}
        return Call.of(self._runners, own | dict(given or {}))

    def _chat_text(self, messages: Sequence[ChatMessage]) -> str:
        """The default of `messages_to_prompt`: the model's own chat template, or roles and texts
        for a model that has none.
        """
        runner, told = self.runner, to_messages(messages)
        if not runner.has_chat_template:
            return plain_messages_to_prompt(messages)
        return RenderedPrompt.of(runner.render_chat(told), told)

    def _completion_text(self, prompt: str) -> str:
        """The default of `completion_to_prompt`: the prompt as the one message of a user."""
        return (
            self._chat_text([ChatMessage(role=MessageRole.USER, content=prompt)])
            if self.runner.has_chat_template
            else prompt
        )

    # -- saving ------------------------------------------------------------------------------------

    @field_serializer("memory")
    def _saved_memory(self, memory: Any) -> str | None:
        if memory is None or isinstance(memory, str | os.PathLike):
            return None if memory is None else os.fspath(memory)
        raise UsageError(
            "a Document that is in use cannot be saved with its LLM; save it to a file and give "
            "the LLM the file."
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """All settings, for `from_dict`. UsageError with a memory that is not in a file."""
        self._saved_memory(self.memory)  # here, because pydantic wraps what a serializer raises
        return dict(super().to_dict(**kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        # not LlamaIndex's own __getstate__, which takes what cannot be pickled out of the living
        # object
        own = {
            name: getattr(self, name) for name in type(self).model_fields if name not in _NOT_SAVED
        }
        own["memory"] = self._saved_memory(self.memory)
        for name in ("messages_to_prompt", "completion_to_prompt"):
            if is_default(own[name]):
                del own[name]
        return _rebuild, (type(self), own)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ConfiguredLLM:
        return self.model_copy()  # runners are shared, the rest is never changed in place


def is_default(to_prompt: Any) -> bool:
    """Whether a `messages_to_prompt` or `completion_to_prompt` is ours and not the user's."""
    return getattr(to_prompt, "__func__", None) in (
        ConfiguredLLM._chat_text,
        ConfiguredLLM._completion_text,
    )


def _rebuild(kind: type[ConfiguredLLM], own: dict[str, Any]) -> ConfiguredLLM:
    return kind(**own)
