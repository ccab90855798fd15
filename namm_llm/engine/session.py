"""`Session`: a loaded model with cache settings and the thread that owns it.

It turns prompts and questions into checked requests, hands them to the engine in the worker's
thread, and gives its callers streams and results. `Runner` and `Document` are built on it.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from namm_llm.attention.rope import rotation_of
from namm_llm.cache import ManagedCache
from namm_llm.cache.combine import joined_behind
from namm_llm.config import CacheConfig, LoadConfig, SamplingParams
from namm_llm.engine.answer import Request
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.decode import decoding_of
from namm_llm.engine.document_reader import Blocks, DocumentReader
from namm_llm.engine.engine import Engine
from namm_llm.engine.forward import tokens_seen
from namm_llm.engine.length import check_fits
from namm_llm.engine.pictures import Held, PictureEncoder
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.results import Event, Generation, OnProgress
from namm_llm.engine.scheduler import RequestQueue
from namm_llm.engine.stream import AsyncEvents, Stream
from namm_llm.engine.worker import Worker, worker_of
from namm_llm.errors import UsageError
from namm_llm.models.budgets import with_kept_budget
from namm_llm.models.loading import LoadedModel
from namm_llm.models.messages import Message
from namm_llm.models.prompt import Prompt, PromptFormat, Question
from namm_llm.models.tools import Tool, ToolChoice, chosen_tools, forced_call
from namm_llm.models.vision.tokens import in_vocabulary

T = TypeVar("T")


class Session:
    """A loaded model with its cache settings. Any number of threads may use it.

    config: what the caches evict. options: how the model is run (chunk, prefix caches, CUDA
    graphs). Sessions on the same loaded model share its worker; each has prefix caches of its own.
    """

    def __init__(self, loaded: LoadedModel, config: CacheConfig, options: LoadConfig) -> None:
        self.loaded = loaded
        self.config = with_kept_budget(loaded.fingerprint, loaded.model_id, config)
        self.options = options
        self.format = PromptFormat(loaded.tokenizer, loaded.backend, loaded.model_id, loaded.vision)
        self.decoding = decoding_of(loaded, options.cuda_graphs)
        self._prefixes = PrefixStore(options.prefix_caches)
        self._worker: Worker = worker_of(loaded)
        self._engine = Engine(
            loaded,
            self.config,
            chunk=options.chunk,
            prefixes=self._prefixes,
            format=self.format,
            decoding=self.decoding,
        )
        self.pictures = PictureEncoder(loaded, self.format, self._worker)
        self._reader = DocumentReader(
            self._engine,
            self._worker,
            self.format,
            options.chunk,
            self.pictures.encode,
            self.check_fits,
        )
        self._queue = RequestQueue(self._engine.serve, self._worker)

    # -- requests ----------------------------------------------------------------------------------

    def prompt_request(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        **overrides: Any,
    ) -> Request:
        """A text to go on with, or a conversation to answer; arguments as of `Runner.stream`."""
        tools = chosen_tools(tools, tool_choice)
        params = _params(params, overrides, tools, tool_choice)
        if not self.format.is_conversation(prompt):
            return self._request(self.format.prompt(prompt, tools), params)
        prompt, pictures = self.pictures.seen(prompt)
        text = self.format.template.render(prompt, tools)
        ids = self.format.rendered_ids(text)
        return self._request(ids, params, text=text, pictures=pictures)

    def question_request(
        self,
        memory: ManagedCache,
        question: Question,
        params: SamplingParams | None = None,
        *,
        memory_ids: Sequence[int] = (),
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        **overrides: Any,
    ) -> Request:
        """A question, or a conversation, about a document; arguments as of `Document.stream`.

        memory_ids: what `memory` read, if that is known.
        """
        tools = chosen_tools(tools, tool_choice)
        params = _params(params, overrides, tools, tool_choice)
        if isinstance(question, str) and not params.constrained:
            params = replace(params, stop=(*params.stop, *self.format.answer_stop))
        pictures = Held()
        if not isinstance(question, str):
            question, pictures = self.pictures.seen(question)
        ids = self.format.question(question, tools)
        return self._request(ids, params, memory, memory_ids=memory_ids, pictures=pictures)

    def reading_request(self, messages: Sequence[Message]) -> Request:
        """A conversation that is read before its last message is whole; nothing is written."""
        messages, pictures = self.pictures.seen(messages)
        text = self.format.template.render_open(messages)
        ids = self.format.rendered_ids(text)
        params = SamplingParams()
        return self._request(ids, params, text=text, reads_only=True, pictures=pictures)

    def _request(
        self,
        ids: list[int],
        params: SamplingParams,
        memory: ManagedCache | None = None,
        *,
        memory_ids: Sequence[int] = (),
        text: str = "",
        reads_only: bool = False,
        pictures: Held = (),
    ) -> Request:
        """Raises UsageError for ids that the model does not know, ContextError for too many."""
        loaded = self.loaded
        constraint = loaded.grammars.constraint(params) if params.constrained else None
        request = Request(
            ids,
            params,
            memory,
            memory_ids,
            constraint,
            text=text,
            reads_only=reads_only,
            pictures=pictures,
        )
        words = in_vocabulary(ids) if pictures else ids
        for id in (min(words, default=0), max(words, default=0), *(params.logit_bias or ())):
            if not 0 <= id < loaded.vocabulary:
                raise UsageError(
                    f"token ids go from 0 to {loaded.vocabulary - 1} with {loaded.model_id}; "
                    f"{id} is none."
                )
        what = "prompt" if memory is None else "question"
        self.check_fits(len(ids), request.memory_tokens, what, memory)
        return request

    @property
    def reads_any_length(self) -> bool:
        """Whether texts may be longer than the positions that the model was trained on."""
        return self._engine.reads_any_length

    def check_fits(
        self, tokens: int, before: int, what: str, memory: ManagedCache | None = None
    ) -> None:
        """See `check_fits`. memory: the cache that the tokens go on from; None for a new one."""
        owner = self._engine if memory is None else memory
        check_fits(self.loaded, tokens, before, what, reads_any_length=owner.reads_any_length)

    # -- answers -----------------------------------------------------------------------------------

    def stream(
        self, request: Request, cancel: CancelFlag | None, on_progress: OnProgress | None = None
    ) -> Stream:
        """The answer in pieces; requests of several threads are answered together."""
        return Stream(self._queue.submit(request, cancel), on_progress)

    def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the answer for the running event loop; closing it stops the model."""
        events = AsyncEvents()
        return events.until_end(self._queue.follow([request], [events]))

    def answer(
        self,
        requests: list[Request],
        cancel: CancelFlag | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        """The whole answers, decoded together; each is what it would be alone."""
        return self._queue.answers(requests, cancel, on_progress)

    # -- documents ---------------------------------------------------------------------------------

    def read(
        self,
        memory: ManagedCache | None,
        blocks: Blocks | Iterable[str],
        on_progress: OnProgress | None = None,
        **pausing: Any,
    ) -> tuple[ManagedCache, array[int]]:
        """A cache that also holds the text of `blocks`, behind what `memory` holds, which stays as
        it is; and the ids of the text, none of a very long one. Blocks with pictures also give
        these (`pictures_of`).

        The text is read in chunks that end where those of the whole text would. Raises ContextError
        if there are more tokens than trained positions and the cache's settings stop there.
        pausing: `on_pause`, called behind each block, and `unread`, the ids that it was given when
        `memory` was saved, to go on as if nothing had been in between.
        """
        return self._reader.read(memory, blocks, on_progress, **pausing)

    @property
    def document_config(self) -> CacheConfig:
        """The settings of a document's cache: what stands before the document always stays."""
        head = self.format.head_tokens
        return self.config.protect([(0, head)]) if head else self.config

    def restore(
        self, tensors: dict[str, Tensor], metadata: dict[str, str], config: CacheConfig
    ) -> ManagedCache:
        """The cache whose `ManagedCache.state` this is. CacheError if it does not fit."""
        model = self.loaded.model
        return self.call(
            lambda: ManagedCache.from_state(tensors, metadata, model=model, config=config)
        )

    def join(
        self, first: ManagedCache, second: ManagedCache, head: int, config: CacheConfig
    ) -> ManagedCache:
        """Both, one behind the other; see `joined_behind`."""
        turn = rotation_of(self.loaded.model)
        return self.call(lambda: joined_behind(first, second, head, config, turn))

    # -- prefix caches -----------------------------------------------------------------------------

    def kept_cache(self, ids: list[int]) -> ManagedCache | None:
        """A fork of the longest kept cache of a prompt that `ids` begin with; None if there is
        none.
        """
        # one more, because one is always left to read
        found = self.call(lambda: self._prefixes.continue_from([*ids, 0]))
        return found[0] if found else None

    def keep_cache(self, ids: list[int], cache: ManagedCache) -> None:
        """Keep a cache that nobody writes to, with the ids that went through it, to go on from."""
        self.call(lambda: self._prefixes.keep(ids[: tokens_seen(cache)], cache))

    @property
    def is_alive(self) -> bool:
        """Whether the thread that owns the model can still work."""
        return self._worker.is_alive

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns in the thread that owns model and caches."""
        return self._worker.call(function)


def _params(
    params: SamplingParams | None,
    overrides: dict[str, Any],
    tools: Sequence[Tool],
    tool_choice: ToolChoice,
) -> SamplingParams:
    params = (params or SamplingParams()).override(overrides)
    schema = None if params.json_schema is None else str(params.json_schema)
    return params.override(forced_call(tools, tool_choice, schema))
