"""One answer in flight: the request as it came in, and the object that grows until it is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.config import SamplingParams
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.forward import tokens_seen
from namm_llm.engine.loop_guard import LoopGuard
from namm_llm.engine.results import FinishReason, Generation, Piece, Timings, TokenLogprob, Usage
from namm_llm.engine.sampling import Sampler
from namm_llm.engine.text import Detokenizer, StopStrings
from namm_llm.models.grammar import Constraint
from namm_llm.models.loading import LoadedModel
from namm_llm.models.vision.tokens import in_vocabulary
from namm_llm.models.vision.vision import Encoded


@dataclass(frozen=True)
class Request:
    """What is to be read, and how it is to be answered."""

    ids: list[int]
    """Token ids to read."""
    params: SamplingParams
    memory: ManagedCache | None = None
    """The cache of a document that `ids` follow; it is forked, never changed."""
    memory_ids: Sequence[int] = ()
    """Token ids of what `memory` read, where they are known: answers quote them."""
    constraint: Constraint | None = None
    """What the answer must be; it serves this request alone."""
    cancel: CancelFlag | None = None
    """Ends this answer alone."""
    text: str = ""
    """What `ids` were made of, if that was messages."""
    reads_only: bool = False
    """Whether the prompt is read and nothing is written."""
    keeps: bool = True
    """Whether its cache is kept to go on from."""
    pictures: tuple[Encoded, ...] = ()
    """Those that `ids` stand for: held here until they are read."""
    owner: str = ""
    """Whose prefix caches it may go on from; those of others are not even measurable."""
    asked_at: float = field(default_factory=perf_counter)

    @property
    def memory_tokens(self) -> int:
        """Tokens before `ids`."""
        return 0 if self.memory is None else tokens_seen(self.memory)


class Answer:
    """One answer in flight: its tokens, its text, its cache and its times.

    Only the decoding loop changes it: `pick` a token, `take` it once the host knows it, `end` it
    early. It is whole as soon as `finish_reason` is set.

    number: of the request, for its events. reused: how many of its ids the cache holds already.
    """

    def __init__(
        self,
        request: Request,
        loaded: LoadedModel,
        cache: ManagedCache | None,
        *,
        number: int = 0,
        reused: int = 0,
    ) -> None:
        self.request = request
        self.number = number
        self.reused = reused
        self.cache = cache
        """Its own cache; None while it is a row of a batch."""
        self.output: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.looped = False
        """Whether it was ended because it repeats itself."""
        self.prefill_seconds = 0.0
        self._loaded = loaded
        unlimited = cache is not None and cache.reads_any_length
        self._limit = _limit(request, None if unlimited else loaded.positions)
        words = in_vocabulary(request.ids)
        self._sampler = Sampler(request.params, words)
        self._detokenizer = Detokenizer(loaded.backend, words)
        self._stops = StopStrings(request.params.stop)
        # what must have a form, such as JSON, is whole only at its end
        guarded = request.params.stop_loops and request.constraint is None
        self._loops = LoopGuard() if guarded else None
        self._shown: list[str] = []
        self._pending: list[int] = []
        self._unread: deque[Tensor] = deque()
        self._logprobs: list[TokenLogprob] = []
        self._first_at = self._last_at = 0.0

    # -- the loop ----------------------------------------------------------------------------------

    def pick(self, logits: Tensor) -> Tensor:
        """The next token, int64 `[]`, on the device of the logits `[V]`."""
        constraint = self.request.constraint
        if self.request.params.logprobs is not None:
            self._unread.append(logits.float().log_softmax(-1))
        if constraint is None:
            token = self._sampler.pick(logits)
        else:
            chosen = int(self._sampler.pick(constraint.mask(logits)))
            left = self._limit - len(self.output)
            token = torch.tensor(constraint.take(chosen, left), device=logits.device)
        self._sampler.came(token)
        return token

    def take(self, token: int) -> Piece | None:
        """Add the token that was picked; the piece of text that it completes, if it does."""
        self.output.append(token)
        logprobs = self._unread.popleft() if self._unread else None
        if token in self._loaded.end_ids:
            self.finish_reason = "stop"
            return None
        self._last_at = perf_counter()
        self._first_at = self._first_at or self._last_at
        self._pending.append(token)
        if logprobs is not None:
            self._logprobs.append(self._logprob(token, logprobs))
        text = self._stops.feed(self._detokenizer.feed(token))
        constraint = self.request.constraint
        self.looped = self._loops is not None and self._loops.feed(token)
        is_complete = constraint is not None and constraint.complete
        if self._stops.found or is_complete or self.looped:
            self.finish_reason = "stop"
        elif len(self.output) >= self._limit:
            self.finish_reason = "length"
        return self._piece(text)

    def end(self, reason: FinishReason) -> None:
        """Nothing more is written."""
        self.finish_reason = reason

    def flush(self) -> Piece | None:
        """What was held back because it might have become a stop string."""
        return self._piece(self._stops.flush())

    def _piece(self, text: str) -> Piece | None:
        if not text:
            return None
        self._shown.append(text)
        logprobs = self._logprobs[-len(self._pending) :] if self._logprobs else []
        piece = Piece(text, tuple(self._pending), tuple(logprobs) if self._pending else ())
        self._pending.clear()
        return piece

    def _logprob(self, token: int, logprobs: Tensor) -> TokenLogprob:
        """What is reported of a token. logprobs: `[V]`."""

        def of(id: int) -> TokenLogprob:
            text = self._loaded.backend.decode([id], skip_special_tokens=False)
            return TokenLogprob(id, text, float(logprobs[id]))

        top = logprobs.topk(self.request.params.logprobs or 0).indices.tolist()
        return replace(of(token), top=tuple(map(of, top)))

    @property
    def may_go_on(self) -> bool:
        """Whether a token may follow the one that is picked next, which is not known yet."""
        return len(self.output) + 1 < self._limit

    @property
    def is_cancelled(self) -> bool:
        """Whether its reader has left."""
        return self.request.cancel is not None and self.request.cancel.is_set()

    # -- what it says ------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._shown)

    @property
    def text_tokens(self) -> list[int]:
        """The output without the token that ended it, which is the chat template's to write."""
        ended = bool(self.output) and self.output[-1] in self._loaded.end_ids
        return self.output[:-1] if ended else self.output[:]

    @property
    def is_cut(self) -> bool:
        """Whether a stop string came, so that the model wrote more than the text says."""
        return self._stops.found

    def result(self) -> Generation:
        """The whole answer with its numbers."""
        assert self.cache is not None
        assert self.finish_reason is not None
        request, before = self.request, self.request.memory_tokens
        return Generation(
            text=self.text,
            finish_reason=self.finish_reason,
            usage=Usage(before + len(request.ids), before + self.reused, len(self.output)),
            timings=Timings(
                load_seconds=self._loaded.load_seconds,
                prefill_seconds=self.prefill_seconds,
                first_token_seconds=(self._first_at or perf_counter()) - request.asked_at,
                decode_seconds=self._last_at - self._first_at,
            ),
            cache=self.cache.stats(),
            model=self._loaded.model_id,
            looped=self.looped,
            logprobs=None if request.params.logprobs is None else tuple(self._logprobs),
            closed_early=request.constraint is not None and request.constraint.closed_early,
        )


def _limit(request: Request, positions: int | None) -> int:
    """Most tokens of the answer."""
    limit = request.params.max_tokens
    if positions is not None:
        limit = min(limit, positions - request.memory_tokens - len(request.ids))
    assert limit >= 1, "a request is checked to fit before it is made"
    return limit
