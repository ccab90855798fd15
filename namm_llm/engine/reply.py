"""`Reply`: the tokens of one answer while it grows."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from namm_llm.cache import ManagedCache
from namm_llm.engine.cancel import CancelFlag
from namm_llm.engine.results import FinishReason
from namm_llm.engine.sampling import Sampler
from namm_llm.models.grammar import Constraint


@dataclass(eq=False)
class Reply:
    """The tokens of one answer while it grows. prompt: ids of the prompt, for the repetition
    penalty. constraint: what the answer must be. cancel: ends this answer alone. finish_reason: set
    from outside it ends the answer (a stop string). cache: its own, once it is finished.
    """

    prompt: list[int]
    sampler: Sampler
    max_tokens: int
    end_ids: frozenset[int]
    constraint: Constraint | None = None
    cancel: CancelFlag | None = None
    output: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cache: ManagedCache | None = None

    def pick(self, logits: Tensor) -> Tensor:
        """The next token, int64 `[]`, on the device of the logits `[V]`."""
        if self.constraint is None:
            token = self.sampler.pick(logits)
        else:
            chosen = int(self.sampler.pick(self.constraint.mask(logits)))
            token = torch.tensor(
                self.constraint.take(chosen, self.max_tokens - len(self.output)),
                device=logits.device,
            )
        self.sampler.came(token)
        return token

    def take(self, token: int) -> int | None:
        """The token, which was picked; None if it is an end of text."""
        self.output.append(token)
        if token in self.end_ids:
            self.finish_reason = "stop"
            return None
        if self.constraint and self.constraint.complete:
            self.finish_reason = "stop"
        elif len(self.output) >= self.max_tokens:
            self.finish_reason = "length"
        return token

    @property
    def may_go_on(self) -> bool:
        """Whether a token may follow the one that is picked next, which is not known yet."""
        return len(self.output) + 1 < self.max_tokens

    @property
    def text_tokens(self) -> list[int]:
        """The output without the token that ended it, which is the chat template's to write."""
        ended = bool(self.output) and self.output[-1] in self.end_ids
        return self.output[:-1] if ended else self.output[:]

    def is_cancelled(self) -> bool:
        """Whether its reader has left."""
        return self.cancel is not None and self.cancel.is_set()
