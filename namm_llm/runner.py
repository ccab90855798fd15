"""`Runner`: text or chat messages in, pieces of text out. It checks and translates; the `Engine`
computes, in the worker's thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import INTERVAL, BudgetScope, CacheConfig, SamplingParams, make_cache_config
from namm_llm.config.header import config_to_dict
from namm_llm.conversation import Conversation
from namm_llm.document import Document
from namm_llm.documents import SavedModel
from namm_llm.documents.blocks import Text, TextBlocks
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.decoding import CudaGraphs, Decoding
from namm_llm.engine.engine import Engine, Event, Progress, Request, RowResult
from namm_llm.engine.forward import tokens_seen
from namm_llm.engine.prefix import PrefixStore
from namm_llm.engine.reader import DocumentReader
from namm_llm.engine.requests import Requests
from namm_llm.engine.results import Generation
from namm_llm.engine.scheduler import RequestQueue
from namm_llm.engine.stream import OnProgress, Stream
from namm_llm.engine.worker import Worker, worker_of
from namm_llm.errors import CacheError, UsageError
from namm_llm.models.fingerprint import template_fingerprint
from namm_llm.models.loading import Device, LoadedModel, Quantization, load_model
from namm_llm.models.locate import BUNDLED, NAMM_FILE, locate
from namm_llm.models.messages import Message
from namm_llm.models.prompt import Prompt, PromptFormat, Question
from namm_llm.models.tools import Tool, ToolChoice, chosen_tools, forced_call
from namm_llm.namm import Namm
from namm_llm.policies import Budget, EvictionPolicy

T = TypeVar("T")
CHUNK = 512
PREFIX_CACHES = 2


class Runner:
    """A model with its eviction settings. Any number of threads may use it; they are served one
    after the other.

    chunk: tokens of a prompt that go through the model at once. prefix_caches: how many caches of
    the last prompts and answers are kept, so that a prompt which goes on from one of them (the next
    turn of a chat) reads only what is new; 0 keeps none. cuda_graphs: see `Decoding`; None records
    them where the model is on one CUDA device, and says once where it cannot. probes: short texts
    that are run against the cache at its updates and thrown away, for a NAMM that was made for
    them; None for the NAMM's own.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        eviction: CacheConfig,
        *,
        chunk: int = CHUNK,
        prefix_caches: int = PREFIX_CACHES,
        cuda_graphs: CudaGraphs = None,
        probes: Sequence[str] | None = None,
    ) -> None:
        if chunk < 1 or prefix_caches < 0:
            raise UsageError(
                f"chunk must be 1 or more and prefix_caches 0 or more, not {chunk} and {prefix_caches}."
            )
        self._loaded = loaded
        self._format = PromptFormat(loaded.tokenizer, loaded.backend, loaded.model_id)
        self._eviction = eviction = eviction.with_probes(probes, self._format.encode)
        self._worker: Worker = worker_of(loaded)
        self._prefixes = PrefixStore(prefix_caches)
        self._decoding = Decoding(loaded, cuda_graphs)
        self._engine = Engine(
            loaded, eviction, chunk, self._prefixes, self._format.known, self._decoding
        )
        self._queue = RequestQueue(self._engine, self._worker)
        self._requests = Requests(loaded, self._format)
        self._reader = DocumentReader(
            self._engine, self._worker, self._format, self._requests, chunk
        )
        self._chunk, self._prefix_caches, self._cuda_graphs = chunk, prefix_caches, cuda_graphs

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "namm-tiny",
        *,
        policy: str | EvictionPolicy | CacheConfig | None = None,
        budget: Budget | float | int | str | None = None,
        namm: Namm | str | os.PathLike[str] | None = None,
        interval: int = INTERVAL,
        budget_scope: BudgetScope | None = None,
        sinks: int | None = None,
        protect_recent: int | None = None,
        kv_bits: int | None = None,
        probes: Sequence[str] | None = None,
        quantization: Quantization | None = None,
        device: Device = "auto",
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        chunk: int = CHUNK,
        prefix_caches: int = PREFIX_CACHES,
        cuda_graphs: CudaGraphs = None,
    ) -> Runner:
        """A runner for a bundled model, a folder or a Hugging Face id; weights that this process
        has already loaded are shared.

        policy .. kv_bits: what the cache evicts and how it is kept, see `make_cache_config`;
        nothing is evicted, if neither policy nor budget is given. namm: for the policy `namm`; the
        model's own if there is one, which is then the default for a budget without a policy.
        probes: see `Runner`. quantization .. trust_remote_code: see `load_model`.
        """
        eviction = _eviction(
            model,
            policy,
            budget,
            namm,
            interval=interval,
            budget_scope=budget_scope,
            sinks=sinks,
            protect_recent=protect_recent,
            kv_bits=kv_bits,
        )
        loaded = load_model(
            model,
            quantization=quantization,
            device=device,
            dtype=dtype,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
        )
        return cls(
            loaded,
            eviction,
            chunk=chunk,
            prefix_caches=prefix_caches,
            cuda_graphs=cuda_graphs,
            probes=probes,
        )

    def with_cache(
        self,
        policy: str | EvictionPolicy | CacheConfig | None = None,
        *,
        budget: Budget | float | int | str | None = None,
        namm: Namm | str | os.PathLike[str] | None = None,
        interval: int = INTERVAL,
        budget_scope: BudgetScope | None = None,
        sinks: int | None = None,
        protect_recent: int | None = None,
        kv_bits: int | None = None,
        probes: Sequence[str] | None = None,
    ) -> Runner:
        """Another runner on the same weights and the same worker, with these eviction settings and
        prefix caches of its own.
        """
        eviction = _eviction(
            self.model_id,
            policy,
            budget,
            namm,
            interval=interval,
            budget_scope=budget_scope,
            sinks=sinks,
            protect_recent=protect_recent,
            kv_bits=kv_bits,
        )
        return Runner(
            self._loaded,
            eviction,
            chunk=self._chunk,
            prefix_caches=self._prefix_caches,
            cuda_graphs=self._cuda_graphs,
            probes=probes,
        )

    # -- what it is --------------------------------------------------------------------------------
    # -------------------------------

    @property
    def model_id(self) -> str:
        """The name the model was loaded by."""
        return self._loaded.model_id

    @property
    def context_window(self) -> int | None:
        """Trained positions: the most tokens that a prompt, a document and the answer may have
        together; None for no limit.
        """
        return self._loaded.positions

    @property
    def footprint_bytes(self) -> int:
        """Memory of the weights."""
        return self._loaded.footprint_bytes

    @property
    def eviction(self) -> CacheConfig:
        """What the caches evict."""
        return self._eviction

    @property
    def decoding(self) -> str:
        """How answers are decoded: `CUDA graphs`, or `plain calls` and why."""
        return self._decoding.describe()

    @property
    def fingerprint(self) -> str:
        """The same for the same weights and tokenizer."""
        return self._loaded.fingerprint

    def identity(self) -> SavedModel:
        """What a memory that is read here belongs to."""
        loaded = self._loaded
        is_folder = loaded.folder is not None and loaded.model_id not in BUNDLED
        return SavedModel(
            name=str(loaded.folder.resolve()) if is_folder and loaded.folder else loaded.model_id,
            revision=getattr(loaded.model.config, "_commit_hash", None),
            quantization=loaded.quantization,
            dtype=str(loaded.model.dtype).removeprefix("torch."),
            fingerprint=loaded.fingerprint,
            template=template_fingerprint(loaded.tokenizer),
        )

    @property
    def loaded(self) -> LoadedModel:
        """Model and tokenizer themselves, for code that goes deeper."""
        return self._loaded

    # -- text and tokens ---------------------------------------------------------------------------
    # -------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of a text and nothing else."""
        return self._format.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._format.decode(ids)

    def count_tokens(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> int:
        """Tokens of a prompt as the model will read it, the one at its beginning and the chat
        template's included.
        """
        return len(self._format.prompt(prompt, tools))

    def token_starts(self, text: str) -> list[int]:
        """The character where each token of a text begins, in order."""
        offsets = self._loaded.backend.encode(text, add_special_tokens=False).offsets
        return list(accumulate((start for start, _ in offsets), max))

    def document_starts(self, text: str) -> list[int]:
        """The character where each token that `read` reads of a document begins, in order; -1 for
        the tokens before the document.
        """
        return self._format.document_starts(text)

    def document_tokens(self, text: str, question: Question) -> int:
        """Tokens of a document as it is read, and of a question behind it; what is left of
        `context_window` is for the answer.
        """
        return len(self._format.document(text)) + len(self._format.question(question))

    def render_chat(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The text that the chat template makes of a conversation."""
        return self._format.render(messages, tools)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model takes messages."""
        return self._format.has_template

    # -- answers -----------------------------------------------------------------------------------
    # -------------------------------

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
        """
        tools = chosen_tools(tools, tool_choice)
        overrides |= forced_call(tools, tool_choice)
        return self._stream(
            self._requests.of_prompt(prompt, params, overrides, tools), cancel, on_progress
        )

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        cancel: CancelFlag | None = None,
        on_progress: OnProgress | None = None,
        **overrides: Any,
    ) -> Generation:
        """The whole answer; arguments as of `stream`."""
        stream = self.stream(
            prompt,
            params,
            tools=tools,
            tool_choice=tool_choice,
            cancel=cancel,
            on_progress=on_progress,
            **overrides,
        )
        return _whole(stream)

    def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, **options: Any
    ) -> Generation:
        """The answer to a conversation, a list of `{"role": ..., "content": ...}`; options as of
        `generate`.
        """
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
        requests = [self._requests.of_prompt(prompt, params, overrides) for prompt in prompts]
        return self._all(requests, cancel, on_progress)

    # -- conversations -----------------------------------------------------------------------------
    # -------------------------------

    def read_ahead(
        self,
        messages: Sequence[Message],
        *,
        cancel: CancelFlag | None = None,
        on_progress: OnProgress | None = None,
    ) -> Generation:
        """Read a conversation before its last message, the user's, is whole: a later prompt in
        which that message goes on after an empty line (a document, and then the question) reads
        only what is new. The result has no text; its usage says what was read.
        """
        text = self._format.render_open(messages)
        request = self._requests.of_ids(self._format.rendered_ids(text), None, {}, text=text)
        return self._results(
            lambda flag: self._engine.read_ahead(request, flag), cancel, on_progress
        )[0]

    def remember(self, messages: Sequence[Message]) -> Document[Generation, Stream] | None:
        """What is kept of a conversation, as a memory to save and to `recall`; None if no cache of
        it is kept.

        It holds text and ids too, with which the next prompt is compared; it is no document to ask.
        """
        text = self._format.render(messages)
        ids, length = self._format.known.longest(text) or ([], 0)
        found = self.call(
            lambda: self._prefixes.continue_from([*ids, 0])
        )  # one more, because one is always left to read
        if not found:
            return None
        conversation = Conversation(text[:length], ids)
        return Document(self, found[0], conversation.sha256, extra=conversation.extra)

    def recall(self, memory: Document[Generation, Stream]) -> None:
        """Go on with the conversation of a memory that `remember` gave, without reading it again."""
        conversation = Conversation.of_memory(memory.extra)
        if config_to_dict(memory.cache.eviction) != config_to_dict(self._eviction):
            then, now = memory.cache.eviction.describe(), self._eviction.describe()
            raise CacheError(
                f"the conversation was read with other cache settings ({then}) than those of now ({now})."
            )
        self.call(
            lambda: self._prefixes.keep(conversation.ids[: tokens_seen(memory.cache)], memory.cache)
        )
        self._format.known.add(conversation.text, "", conversation.ids)

    def forget_prefixes(self) -> None:
        """Free the caches that are kept to go on from."""
        self.call(self._prefixes.clear)

    # -- documents ---------------------------------------------------------------------------------
    # -------------------------------

    def read(
        self, text: Text, *, on_progress: OnProgress | None = None
    ) -> Document[Generation, Stream]:
        """Read a document once, evicting on the way; the memory that comes back can be asked,
        extended, saved and opened again.

        text: a document, a list of them (read with an empty line between), or a stream of pieces
        such as an open text file, which is never there as a whole: it is read in blocks that end
        where tokenizers begin anew (behind a newline, before a space), and gives the memory of the
        whole text. on_progress: called with the tokens that are read and those that have come so
        far.
        """
        blocks = TextBlocks(text)
        cache = self.read_on(None, blocks, on_progress)
        return Document(self, cache, blocks.sha256)

    def read_on(
        self, memory: ManagedCache | None, blocks: Iterable[str], on_progress: OnProgress | None
    ) -> ManagedCache:
        """For `Document`: a cache that also holds the text of `blocks`, behind what `memory` holds,
        which stays as it is.
        """
        return self._reader.read(memory, blocks, on_progress)

    def open(self, path: str | os.PathLike[str]) -> Document[Generation, Stream]:
        """A memory that was saved with this model; it keeps the eviction settings that it was read
        with.
        """
        return Document.load(path, self)

    def ask_each(
        self,
        memories: Sequence[Document[Generation, Stream]],
        question: Question,
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        **overrides: Any,
    ) -> list[Generation]:
        """The answers to one question about several documents, decoded together; each is what it
        would be alone.
        """
        ids = self._format.question(question)
        return self._all(
            [self._requests.of_ids(ids, params, overrides, memory.cache) for memory in memories],
            cancel,
            None,
        )

    def stream_question(
        self,
        memory: ManagedCache,
        question: Question,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        cancel: CancelFlag | None = None,
        **overrides: Any,
    ) -> Stream:
        """For `Document`: the answer to a question, or to a conversation, about what `memory`
        holds; tools as of `stream`.
        """
        tools = chosen_tools(tools, tool_choice)
        overrides |= forced_call(tools, tool_choice)
        request = self._requests.of_ids(
            self._format.question(question, tools), params, overrides, memory
        )
        return self._stream(request, cancel, None)

    def answer_questions(
        self,
        memory: ManagedCache,
        questions: Sequence[Question],
        params: SamplingParams | None = None,
        *,
        cancel: CancelFlag | None = None,
        **overrides: Any,
    ) -> list[Generation]:
        """For `Document`: the answers to several questions, decoded together."""
        requests = [
            self._requests.of_ids(self._format.question(question), params, overrides, memory)
            for question in questions
        ]
        return self._all(requests, cancel, None)

    def restore(
        self, tensors: dict[str, Tensor], metadata: dict[str, str], eviction: CacheConfig
    ) -> ManagedCache:
        """For `Document`: a cache from what its `state` gave, with these settings."""
        return self.call(
            lambda: ManagedCache.from_state(
                tensors, metadata, model=self._loaded.model, eviction=eviction
            )
        )

    def call(self, function: Callable[[], T]) -> T:
        """For `Document`: what `function` returns in the thread that owns model and caches."""
        return self._worker.call(function)

    # -- requests ----------------------------------------------------------------------------------
    # -------------------------------

    def _stream(
        self, request: Request, cancel: CancelFlag | None, on_progress: OnProgress | None
    ) -> Stream:
        return Stream(self._queue.submit(request, cancel), on_progress)

    def _all(
        self, requests: list[Request], cancel: CancelFlag | None, on_progress: OnProgress | None
    ) -> list[Generation]:
        return self._results(lambda flag: self._engine.answer(requests, flag), cancel, on_progress)

    def _results(
        self,
        job: Callable[[CancelFlag], Iterator[Event]],
        cancel: CancelFlag | None,
        on_progress: OnProgress | None,
    ) -> list[Generation]:
        results: dict[int, Generation] = {}
        with closing(self._worker.submit(job, cancel)) as events:
            for event in events:
                if isinstance(event, RowResult):
                    results[event.row] = event.generation
                elif isinstance(event, Progress) and on_progress is not None:
                    on_progress(event.done, event.total)
        return [results[row] for row in sorted(results)]


def _whole(stream: Stream) -> Generation:
    with stream:
        for _ in stream:
            pass
    return stream.result


def _eviction(
    model: str | os.PathLike[str],
    policy: str | EvictionPolicy | CacheConfig | None,
    budget: Budget | float | int | str | None,
    namm: Namm | str | os.PathLike[str] | None,
    **settings: Any,
) -> CacheConfig:
    """The settings of a runner on this model, whose own NAMM is the default."""
    if namm is None and (policy == "namm" or (policy is None and budget is not None)):
        namm = _own_namm(model)
    return make_cache_config(policy, budget=budget, namm=namm, chunked=True, **settings)


def _own_namm(model: str | os.PathLike[str]) -> os.PathLike[str] | None:
    """The NAMM that lies beside the model's weights."""
    folder = locate(model)
    return folder / NAMM_FILE if folder is not None and (folder / NAMM_FILE).is_file() else None
