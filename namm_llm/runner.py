"""`Runner`: text or chat messages in, pieces of text out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from namm_llm import conversation
from namm_llm.config import (
    CACHE,
    DEFAULT_MODEL,
    LOAD,
    RUN,
    CacheConfig,
    LoadConfig,
    SamplingParams,
    settings_of,
    split,
    takes_settings,
)
from namm_llm.document import Document, combined, fingerprint_of
from namm_llm.documents.blocks import Text, TextBlocks
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.results import Generation, OnProgress
from namm_llm.engine.session import Session
from namm_llm.engine.stream import Stream
from namm_llm.models.loading import LoadedModel, load_model
from namm_llm.models.messages import Message
from namm_llm.models.own_namm import cache_config_of
from namm_llm.models.prompt import Prompt, Question
from namm_llm.models.tools import Tool, ToolChoice
from namm_llm.policies.base import EvictionPolicy
from namm_llm.saving import SaveTo, read_document


class Runner:
    """A model with its cache settings, which reads, answers and keeps documents.

    Any number of threads may use it. `Runner(memory.session)` is the one that read a memory.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        """The engine behind it, for code that goes deeper."""

    @classmethod
    @takes_settings("Runner.load", settings_of("load", "run", "cache"))
    def load(cls, model: str | os.PathLike[str] = DEFAULT_MODEL, **settings: Any) -> Runner:
        """A runner for a bundled model, a folder or a Hugging Face id; loaded weights are shared.
        Nothing is evicted without a policy or a budget.

        Raises UsageError for wrong settings and NammFileError for a wrong NAMM before anything is
        loaded, ModelError if the model cannot be loaded.
        """
        load, run, cache = split(settings, LOAD, RUN, CACHE)
        options, config = LoadConfig(model=model, **load, **run), cache_config_of(model, **cache)
        return cls(Session(load_model(model, **load), config, options))

    @takes_settings("Runner.with_cache", settings_of("cache"))
    def with_cache(
        self, policy: str | EvictionPolicy | CacheConfig | None = None, **settings: Any
    ) -> Runner:
        """Another runner on the same weights, with these cache settings. Raises UsageError."""
        config = cache_config_of(self.model_id, policy=policy, **settings)
        return Runner(Session(self.loaded, config, self.session.options))

    # -- what it is --------------------------------------------------------------------------------
    @property
    def model_id(self) -> str:
        """The name the model was loaded by."""
        return self.loaded.model_id

    @property
    def context_window(self) -> int | None:
        """Trained positions: most tokens of document, prompt and answer together; or None."""
        return self.loaded.positions

    @property
    def config(self) -> CacheConfig:
        """What the caches evict."""
        return self.session.config

    @property
    def decoding(self) -> str:
        """How answers are decoded: `CUDA graphs`, or `plain calls` and why."""
        return self.session.decoding.describe()

    @property
    def fingerprint(self) -> str:
        """The same for the same weights and tokenizer."""
        return self.loaded.fingerprint

    @property
    def loaded(self) -> LoadedModel:
        """Model and tokenizer themselves, for code that goes deeper."""
        return self.session.loaded

    # -- text and tokens ---------------------------------------------------------------------------
    def encode(self, text: str) -> list[int]:
        """The ids of a text and nothing else."""
        return self.session.format.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.session.format.decode(ids)

    def count_tokens(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> int:
        """Tokens of a prompt as the model will read it, those of the chat template included."""
        return len(self.session.pictures.token_ids(prompt, tools))

    def token_starts(self, text: str) -> list[int]:
        """The character where each token of a text begins."""
        return self.session.format.token_starts(text)

    def document_starts(self, text: str) -> list[int]:
        """The character where each token that `read` reads begins; -1 before it."""
        return self.session.format.document_starts(text)

    def document_tokens(self, text: str, question: Question) -> int:
        """Tokens of a document and of a question behind it; the rest is for the answer."""
        format = self.session.format
        return len(format.document(text)) + len(format.question(question))

    def render_chat(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The text that the chat template makes of a conversation."""
        return self.session.format.template.render(self.session.pictures.seen(messages)[0], tools)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model takes messages."""
        return self.session.format.template.is_there

    # -- answers -----------------------------------------------------------------------------------
    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        cancel: CancelFlag | None = None,
        on_progress: OnProgress | None = None,
        **overrides: Any,
    ) -> Stream:
        """The answer in pieces, while it is computed. A text is gone on with as it stands; messages
        go through the chat template.

        tools: in OpenAI's format, for messages. tool_choice: `auto`, `none`, `required` or the name
        of one; a call that is forced follows the tool's schema (extra `structured`).
        `parse_tool_calls` finds the calls in the answer. overrides: any of the sampling parameters.
        on_progress: called with the tokens of the prompt that are read, and all of them.

        Raises ContextError if the prompt leaves no position for an answer, UsageError for an empty
        prompt or wrong options, ModelError if the model takes no messages or memory runs out.
        """
        request = self.session.prompt_request(
            prompt, params, tools=tools, tool_choice=tool_choice, **overrides
        )
        return self.session.stream(request, cancel, on_progress)

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, **options: Any
    ) -> Generation:
        """The whole answer; options and errors as of `stream`."""
        return self.stream(prompt, params, **options).finished()

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, **options: Any
    ) -> Generation:
        """The answer to a list of `{"role": ..., "content": ...}`; options as of `stream`."""
        return self.generate(messages, params, **options)

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        on_progress: OnProgress | None = None,
        **overrides: Any,
    ) -> list[Generation]:
        """The answers to several prompts, decoded together; each is what it would be alone."""
        session = self.session
        requests = [session.prompt_request(prompt, params, **overrides) for prompt in prompts]
        return session.answer(requests, cancel, on_progress)

    # -- conversations -----------------------------------------------------------------------------
    def read_ahead(self, messages: Sequence[Message], **options: Any) -> Generation:
        """Read a conversation before its last message, the user's, is whole. A later prompt in
        which that message goes on after an empty line (a document, and then the question) reads
        only what is new. The result has no text; its usage says what was read.

        options: `cancel`, `on_progress`.
        """
        request = self.session.reading_request(messages)
        return self.session.answer([request], **options)[0]

    def remember(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Document | None:
        """What is kept of a conversation, to save and to `recall`; no document to ask. Or None."""
        return conversation.remember(self.session, messages, tools)

    def recall(self, memory: Document) -> None:
        """Go on with a conversation that `remember` gave. Raises UsageError, CacheError."""
        conversation.recall(self.session, memory)

    # -- documents ---------------------------------------------------------------------------------
    def read(
        self, text: Text, *, save: SaveTo = None, on_progress: OnProgress | None = None
    ) -> Document:
        """Read a document once, evicting on the way; the memory that comes back can be asked,
        extended, saved and opened again.

        text: a document, a list of them (read with an empty line between), or a stream of pieces
        such as an open text file, which is read in blocks and never there as a whole. Or pictures:
        a `Path` to one or to a folder of frames, an array, a PIL image, or a list of these. save: a
        file, written every `save_every` tokens and at the end; if it holds the beginning of this
        text, reading goes on behind it. on_progress: called with the tokens read and those to come.
        Raises DocumentError for what is no text or not that of `save`, ContextError for more tokens
        than trained positions, ModelError if the device runs out of memory.
        """
        return read_document(self.session, text, save, on_progress)

    def combine(self, documents: Sequence[Document], separators: Sequence[str] = "") -> Document:
        """Documents that were read separately as one, without reading them; see `combined`."""
        return combined(documents, separators)

    def memory_fingerprint(self, text: str) -> str:
        """`Document.fingerprint` of what `read` gives for a text, without reading it."""
        return fingerprint_of(self.session, self.session.document_config, TextBlocks.hash_of(text))

    def open(self, path: str | os.PathLike[str], text: str | None = None) -> Document:
        """A memory that was saved with this model, with its own settings; or DocumentError.

        text: what it was read from, if that is at hand: answers that quote it come faster.
        """
        return Document.load(path, self.session, text)

    def ask_each(
        self,
        memories: Sequence[Document],
        question: Question,
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        **overrides: Any,
    ) -> list[Generation]:
        """The answers to one question about several documents, as of `Document.ask`, together."""
        requests = [memory.request(question, params, **overrides) for memory in memories]
        return self.session.answer(requests, cancel)
