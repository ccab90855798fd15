"""What an eviction policy is: a frozen value that scores the tokens of one KV head.

A policy never sees batches, layers or ragged storage. What it remembers of a token is a row of the
segment's `state`, which the cache evicts with the token. Which tokens stay, given the scores, is
decided in `selection.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.errors import PolicyError
from namm_llm.tokens import HeadTokens

RECENT = 64  # tokens; what has just come, a question for instance, was not looked for yet


@dataclass(frozen=True)
class EvictionPolicy(ABC):
    """Scores the tokens of one KV head; the lowest are evicted first.

    Class attributes that a policy sets: `name` (its row in the table), `observes` (whether it looks
    at attention at all), `threshold` (the score from which on a token stays when there is no
    budget; None if the scores have no natural zero), `comparable` (whether scores of different
    heads and layers mean the same, so that they had better share one budget), `evicts` (False only
    for the full cache).
    """

    name: ClassVar[str]
    observes: ClassVar[bool] = False
    threshold: ClassVar[float | None] = None
    comparable: ClassVar[bool] = False
    evicts: ClassVar[bool] = True

    @property
    def replays(self) -> bool:
        """Whether it asks the queries again from later positions (`Observation.again`), which takes
        a model with RoPE.
        """
        return False

    @property
    def takes_probes(self) -> bool:
        """Whether probes have to be run at its updates."""
        return False

    @property
    def probe_texts(self) -> tuple[str, ...]:
        """Its own probes, for users who name none."""
        return ()

    @property
    def probe_ids(self) -> tuple[tuple[int, ...], ...]:
        """The probes to run, as token ids of the model."""
        return ()

    def probes_at(self, update: int) -> bool:
        """Whether they are run at this update, from 1."""
        return bool(self.probe_ids)

    def with_probes(self, ids: Sequence[Sequence[int]]) -> EvictionPolicy:
        """The same with these probes. PolicyError if it takes none."""
        raise PolicyError(
            f"policy {self.name} takes no probes; a NAMM that was made for them does (namm-llm train distil --family probes)"
        )

    @property
    def state_width(self) -> int:
        """Numbers that it remembers of each token."""
        return 0

    @property
    def state_dtype(self) -> torch.dtype:
        """In which precision the state is kept between two updates."""
        return torch.float32

    @property
    def sinks(self) -> int:
        """First tokens of the text that the policy never evicts, unless the user says otherwise."""
        return 0

    def protect_recent(self, limit: int) -> int:
        """Newest tokens that it never evicts, out of `limit` tokens for each head, unless the user
        says otherwise.
        """
        return 0

    @property
    def scores_layer_at_once(self) -> bool:
        """Whether `score` needs a token's state and position alone, so that a layer's heads are
        scored together (`score_layer`). Who overrides `score` of a policy that does turns this off.
        """
        return False

    def carry(self, seen: int) -> int:
        """How many of the newest queries it must see again at the next update, after one at `seen`
        tokens.
        """
        return 0

    def update(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        """The new state `[N, W]` of the segment's tokens; tokens that have just come start at zero."""
        return segment.state

    @abstractmethod
    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        """Scores `[N]` (float32) of the segment's tokens, after `update`."""

    def remember(self, state: Tensor, scores: Tensor) -> Tensor:
        """The state `[N, W]` to keep, after `score` gave these scores `[N]`, for a policy that
        remembers its own.
        """
        return state

    def score_layer(self, segments: Sequence[HeadTokens], stop: int) -> list[Tensor]:
        """`score` of all heads of a layer, from state and positions alone, where
        `scores_layer_at_once`. stop: position after the newest token.
        """
        return [self.score(segment, None) for segment in segments]
