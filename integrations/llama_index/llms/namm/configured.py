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
from llama_index.llms.namm import settings
from llama_index.llms.namm.messages import to_messages
from llama_index.llms.namm.runners import RunnerPool
from llama_index.llms.namm.settings import Call

from namm_llm import UsageError

if TYPE_CHECKING:
    from namm_llm import Document, Runner

_NOT_SAVED = ("callback_manager", "rate_limiter")  # they belong to the running program


class ConfiguredLLM(LLM):
    """Fields with the value None take the library's default, see `namm_llm.Runner.load` and
    `namm_llm.SamplingParams`.
    """

    model: str = Field(
        default="namm-tiny", description="Bundled model, folder, or Hugging Face id."
    )
    quantization: str | None = Field(default=None, description="nf4, fp4 or int8.")
    device: str | dict[str, Any] | None = Field(
        default=None, description="auto, cpu, cuda, cuda:1, mps, or a device map."
    )
    dtype: str | None = Field(default=None, description="auto, float32, bfloat16 or float16.")
    revision: str | None = Field(default=None, description="Of a Hugging Face id.")
    local_files_only: bool | None = Field(default=None, description="Never look at the network.")
    trust_remote_code: bool | None = Field(
        default=None, description="Run code that comes with the model."
    )

    policy: str | None = Field(
        default=None, description="What is evicted: full, namm, keydiff, ..."
    )
    budget: float | int | str | None = Field(
        default=None, description="What stays: 0.25 of the tokens, 2048 tokens, or '2GiB'."
    )
    namm: str | None = Field(default=None, description="File of a NAMM, for the policy namm.")
    interval: int | None = Field(default=None, description="Tokens between two evictions.")
    budget_scope: str | None = Field(
        default=None, description="Tokens of a head, a layer or the model budget_scope; or padded."
    )
    sinks: int | None = Field(default=None, description="First tokens that always stay.")
    protect_recent: int | None = Field(default=None, description="Newest tokens that always stay.")
    kv_bits: int | None = Field(
        default=None, description="8 keeps keys and values as 8-bit numbers."
    )
    chunk: int | None = Field(default=None, description="Tokens of a prompt that are read at once.")
    prefix_caches: int | None = Field(
        default=None, description="Caches of the last prompts that are kept to go on from."
    )

    max_tokens: int | None = Field(default=None, description="Most tokens of an answer.")
    temperature: float | None = Field(
        default=None, description="0 always takes the likeliest token."
    )
    top_k: int | None = Field(default=None)
    top_p: float | None = Field(default=None)
    min_p: float | None = Field(default=None)
    repetition_penalty: float | None = Field(default=None)
    seed: int | None = Field(default=None)
    stop: str | list[str] | None = Field(
        default=None, description="Texts that end an answer and are not part of it."
    )
    json_schema: dict[str, Any] | str | None = Field(
        default=None, description="The answer is JSON that fits it."
    )
    regex: str | None = Field(default=None, description="The answer matches it.")
    grammar: str | None = Field(
        default=None, description="The answer fits this grammar, in the Lark form."
    )

    memory: Any = Field(default=None, description="A Document, or the file of one.")
    context_window: int | None = Field(
        default=None, description="Tokens that prompt and answer may have together."
    )
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
        for name in ("model", "namm"):
            if isinstance(own.get(name), os.PathLike):
                own[name] = os.fspath(own[name])
        super().__init__(**own)
        if own.get("messages_to_prompt") is None:
            self.messages_to_prompt = self._chat_text
        if own.get("completion_to_prompt") is None:
            self.completion_to_prompt = self._completion_text

    # -- what it is --------------------------------------------------------------------------------
    # -------------------------------

    @classmethod
    def class_name(cls) -> str:
        return "NammLLM"

    @property
    def runner(self) -> Runner:
        """The runner of the LLM's own settings; the first look loads the model."""
        return self._runners.get(self._call().loading)

    @property
    def metadata(self) -> LLMMetadata:
        """Of the model, so the first look loads it. A document memory takes its tokens from the
        context window.
        """
        from namm_llm import SamplingParams

        runner = self.runner
        window = min(runner.context_window or sys.maxsize, self.context_window or sys.maxsize)
        memory = self._memory_of(self._call())
        if memory is not None:
            window -= memory.info()["seen_tokens"]
        chat = runner.has_chat_template
        return LLMMetadata(
            context_window=window,
            num_output=self.max_tokens or SamplingParams().max_tokens,
            is_chat_model=chat,
            is_function_calling_model=chat
            if self.is_function_calling_model is None
            else self.is_function_calling_model,
            model_name=runner.model_id,
        )

    def to_payload(self) -> dict[str, Any]:
        """For LlamaIndex's events: the settings that differ from the defaults. Loads nothing, as
        async calls look at it too.
        """
        chosen = {name: getattr(self, name) for name in settings.PLAIN}
        return {
            "class_name": self.class_name(),
            "model_name": self.model,
            **settings.part(chosen, settings.PLAIN),
        }

    # -- tokens ------------------------------------------------------------------------------------
    # -------------------------------

    def tokenize(self, text: str) -> list[int]:
        """The model's own token ids of a text."""
        return self.runner.encode(text)

    def set_as_global_tokenizer(self) -> None:
        """Make LlamaIndex count with this model's tokenizer when it cuts and packs texts (its
        default is GPT's).
        """
        Settings.tokenizer = self.tokenize

    # -- calls -------------------------------------------------------------------------------------
    # -------------------------------

    def _call(self, given: Mapping[str, Any] | None = None) -> Call:
        """The LLM's own settings, with those of one call in their place."""
        own = {name: getattr(self, name) for name in (*settings.PLAIN, "memory")}
        return Call.of(own, given or {})

    def _runner_of(self, call: Call) -> Runner:
        return self._runners.get(call.loading)

    def _memory_of(self, call: Call) -> Document[Any, Any] | None:
        if isinstance(call.memory, str | os.PathLike):
            return self._runners.memory(call.loading, call.memory)
        if call.memory is not None and not hasattr(call.memory, "ask"):
            raise UsageError(
                f"memory is a Document or the file of one, not {type(call.memory).__name__}."
            )
        return call.memory  # type: ignore[no-any-return]

    def _chat_text(self, messages: Sequence[ChatMessage]) -> str:
        """The default of `messages_to_prompt`: the model's own chat template, or roles and texts
        for a model that has none.
        """
        runner = self.runner
        return (
            runner.render_chat(to_messages(messages))
            if runner.has_chat_template
            else plain_messages_to_prompt(messages)
        )

    def _completion_text(self, prompt: str) -> str:
        """The default of `completion_to_prompt`: the prompt as the one message of a user."""
        return (
            self._chat_text([ChatMessage(role=MessageRole.USER, content=prompt)])
            if self.runner.has_chat_template
            else prompt
        )

    # -- saving ------------------------------------------------------------------------------------
    # -------------------------------

    @field_serializer("memory")
    def _saved_memory(self, memory: Any) -> str | None:
        if memory is None or isinstance(memory, str | os.PathLike):
            return None if memory is None else os.fspath(memory)
        raise UsageError(
            "a Document that is in use cannot be saved with its LLM; save it to a file and give the LLM the file."
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """All settings, for `from_dict`. UsageError with a document memory that is not in a file."""
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
