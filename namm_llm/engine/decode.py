"""The decoding loop: one token after the other, for one answer or several side by side.

Every prompt is read on its own, so nothing is padded; then its cache enters the batch, which
finished answers leave. No torch context is held across a `yield`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Literal, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from namm_llm.cache import ManagedCache
from namm_llm.cache.transformers import device_of
from namm_llm.engine.answer import Answer
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import feed, step
from namm_llm.engine.lookup import LookupBatch, Rounding, TokenText, rounding_of
from namm_llm.engine.results import RowPiece
from namm_llm.errors import ModelError
from namm_llm.models.loading import LoadedModel

CudaGraphs = bool | Literal["eager"] | None


class Batch(Protocol):
    """Sequences that are decoded together, one token of each at a time, until they leave."""

    runs_ahead: bool
    """Whether the newest token of a sequence that leaves can be taken back."""

    def enter(self, cache: ManagedCache, text: TokenText | None) -> None:
        """One more sequence, the last row from now on. text: what its tokens are guessed from."""

    def step(self, tokens: Tensor) -> Tensor:
        """Logits `[B, V]` after one more token `[B, 1]` of each sequence that is left."""

    def fetch(self, tokens: Tensor) -> Callable[[], list[int]]:
        """Start to bring tokens, int64 `[B]`, to the host; the function waits for them."""

    def leave(self, row: int, *, without_last: bool = False) -> ManagedCache:
        """The cache of one sequence, which is decoded no further; those behind it move up."""


class DecodeLoop:
    """The answers that are being written, one row of a batch each.

    make_batch: of the answers that come first; their caches are used up.
    """

    def __init__(
        self, make_batch: Callable[[Sequence[Answer]], Batch], loaded: LoadedModel
    ) -> None:
        self._make_batch = make_batch
        self._loaded = loaded
        self._batch: Batch | None = None
        self._scores: list[Tensor] = []  # logits `[V]` that the next token of each is picked from
        self.going: list[Answer] = []
        """The answers, in the order of their rows."""

    def enter(self, answers: Sequence[Answer], logits: Sequence[Tensor]) -> None:
        """Write these answers too. logits: `[V]` of each, after its prompt."""
        if self._batch is None:
            self._batch = self._make_batch(answers)
        else:
            for answer in answers:
                assert answer.cache is not None
                self._batch.enter(answer.cache, text_of(answer, rounding_of(self._loaded)))
                answer.cache = None
        self.going += answers
        self._scores += logits

    def step(self, cancel: CancelFlag) -> Iterator[RowPiece | Answer]:
        """One token of each answer: pieces of text, and each answer with its cache as soon as it is
        whole.

        Where the batch can take a token back, its next step is begun before the host has read the
        tokens, so that the device never waits for text to be made of them; what is found to be the
        end one step late is taken back. A constraint has to know each token first.
        """
        batch, going = self._batch, self.going
        assert batch is not None
        picked = [answer.pick(own) for answer, own in zip(going, self._scores, strict=True)]
        tokens = torch.stack(picked)
        arrived = batch.fetch(tokens)
        ahead = batch.runs_ahead and _may_run_ahead(going)
        if ahead:
            self._scores = list(batch.step(tokens[:, None]))
        for answer, token in zip(going, arrived(), strict=True):
            if cancel.is_set() or answer.is_cancelled:
                answer.end("cancelled")
            elif (piece := answer.take(token)) is not None:
                yield RowPiece(answer.number, piece)
        staying = [row for row, answer in enumerate(going) if answer.finish_reason is None]
        for row in reversed(range(len(going))):
            if row not in staying:
                going[row].cache = batch.leave(row, without_last=ahead)
        self.going = [going[row] for row in staying]
        if not self.going:
            self._batch, self._scores = None, []
        elif ahead:
            self._scores = [self._scores[row] for row in staying]
        else:
            self._scores = list(batch.step(tokens[staying, None]))
        yield from (answer for answer in going if answer.finish_reason is not None)


def _may_run_ahead(answers: list[Answer]) -> bool:
    return any(answer.may_go_on for answer in answers) and not any(
        answer.request.constraint for answer in answers
    )


class PlainBatch:
    """The batch of any model on any device: caches that grow, joined; they are used up.

    Its eviction steps come with their token, so no token can be taken back.
    """

    runs_ahead = False

    def __init__(self, model: PreTrainedModel, caches: list[ManagedCache]) -> None:
        self._model = model
        self._device = device_of(model.get_input_embeddings())
        self._cache = caches[0] if len(caches) == 1 else ManagedCache.join(caches)

    def enter(self, cache: ManagedCache, text: TokenText | None) -> None:
        """As of `Batch`."""
        self._cache = ManagedCache.join([self._cache, cache])

    def step(self, tokens: Tensor) -> Tensor:
        """As of `Batch`. Raises ModelError if the device runs out of memory."""
        positions = torch.tensor(self._cache.next_positions(), device=self._device)[:, None]
        return step(self._model, self._cache, tokens.to(self._device), positions)

    @property
    def can_take_back(self) -> bool:
        """Whether newest tokens can be forgotten up to the last eviction step; a sliding window has
        lost what it would need for that.
        """
        return len(self._cache.managed) == len(self._cache.layers)

    @property
    def room(self) -> int:
        """Tokens of the only sequence that come before the next eviction step."""
        interval = self._cache.config.interval
        return interval - self._cache.seen_tokens()[0] % interval - 1

    def steps(self, tokens: list[int]) -> Tensor:
        """Logits `[T, V]` after each of T more tokens of the only sequence, at most `room`."""
        ids = torch.tensor([tokens], device=self._device)
        [logits] = feed(self._model, self._cache, ids)
        return logits[0]

    def take_back(self, count: int) -> None:
        """Forget the newest tokens, none of which an eviction step has seen."""
        self._cache.crop(-count)

    def fetch(self, tokens: Tensor) -> Callable[[], list[int]]:
        """As of `Batch`."""
        return tokens.tolist

    def leave(self, row: int, *, without_last: bool = False) -> ManagedCache:
        """As of `Batch`."""
        assert not without_last, "it does not run ahead"
        rows = len(self._cache.seen_tokens())
        if rows == 1:
            return self._cache
        single = self._cache.fork()
        single.select_rows([row])
        others = [other for other in range(rows) if other != row]
        self._cache.select_rows(others)
        return single


def with_lookup(batch: PlainBatch, answers: Sequence[Answer], loaded: LoadedModel) -> Batch:
    """The batch, with guesses for those answers that are certain to stay the same: greedy ones, in
    a cache whose layers can all give tokens back.
    """
    rounding = rounding_of(loaded)
    if rounding is Rounding.OTHER or not batch.can_take_back:
        return batch
    texts = [text_of(answer, rounding) for answer in answers]
    return LookupBatch(batch, texts, rounding) if any(texts) else batch


def text_of(answer: Answer, rounding: Rounding) -> TokenText | None:
    """What the tokens of an answer are guessed from; None for one that is not guessed."""
    request, params = answer.request, answer.request.params
    if rounding is Rounding.OTHER or params.temperature or params.prompt_lookup == 0:
        return None
    if rounding is Rounding.CLOSE and not params.is_plain:
        return None
    return TokenText([*request.memory_ids, *request.ids], params.prompt_lookup)


class Decoding(Protocol):
    """How the answers of one runner are decoded."""

    def batch(self, caches: list[ManagedCache]) -> Batch:
        """The sequences of these caches, which are used up, side by side; the list is emptied."""

    def describe(self) -> str:
        """One line: what is done, and why no more."""


class PlainDecoding:
    """Decoding by plain calls of the model.

    reason: why CUDA graphs are not used.
    """

    def __init__(self, loaded: LoadedModel, reason: str) -> None:
        self._loaded = loaded
        self._reason = reason

    def batch(self, caches: list[ManagedCache]) -> Batch:
        """As of `Decoding`."""
        batch = PlainBatch(self._loaded.model, caches)
        caches.clear()  # else what the batch evicts would stay alive in them
        return batch

    def describe(self) -> str:
        """As of `Decoding`."""
        return f"plain calls: {self._reason}"


def decoding_of(loaded: LoadedModel, cuda_graphs: CudaGraphs) -> Decoding:
    """How a model is decoded with this setting; the one place that looks for `engine/graph`.

    Raises ModelError if CUDA graphs are insisted on and cannot be had.
    """
    if cuda_graphs is False:
        return PlainDecoding(loaded, "cuda_graphs=False")
    try:
        graph = import_module("namm_llm.engine.graph")
    except ModuleNotFoundError as error:
        if error.name != "namm_llm.engine.graph":
            raise
        reason = "this installation has no namm_llm.engine.graph"
        if cuda_graphs is not None:
            raise ModelError(
                f"{loaded.model_id} cannot be decoded with cuda_graphs={cuda_graphs!r}: "
                f"{reason}; leave cuda_graphs out."
            ) from error
        return PlainDecoding(loaded, reason)
    return cast(Decoding, graph.GraphDecoding(loaded, cuda_graphs))
