"""The base classes of eviction policies: frozen values that score the tokens of one KV head.

Derive from `ScorePolicy` for scores of keys, values and positions, from `ObservingPolicy` for
scores that look at attention; decorate the class with `register_policy`. A policy never sees
batches, layers or ragged storage. What it remembers of a token is a row of `HeadTokens.state`,
which the cache evicts with the token. Which tokens stay, given the scores, is decided by the cache.
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

# newest tokens to protect: no attention has been paid yet to a question that has just come
RECENT = 64


@dataclass(frozen=True)
class EvictionPolicy(ABC):
    """What the two base classes share: the settings of a policy that the cache asks for.

    Derive from `ScorePolicy` or `ObservingPolicy`, not from this class.
    """

    name: ClassVar[str]
    """Name under which `register_policy` knows it."""
    threshold: ClassVar[float | None] = None
    """Score from which on a token stays where there is no budget; None if the scores have no
    natural zero.
    """
    comparable: ClassVar[bool] = False
    """Whether scores of different heads and layers mean the same, so that the whole model had
    better share one budget.
    """
    evicts: ClassVar[bool] = True
    """False only for the full cache."""
    observes: ClassVar[bool] = False
    """Whether queries are kept for it: true for every `ObservingPolicy`."""

    @property
    def label(self) -> str:
        """What results call it: its name, and what tells two of that name apart."""
        return self.name

    @property
    def rotates(self) -> bool:
        """Whether it uses `Observation.rotation`, for query replay or for itself, which takes a
        model with RoPE.
        """
        return False

    @property
    def repeats(self) -> int:
        """Tokens of a chunk in which a text, once it was read, goes through the model again before
        anything is evicted (see `ObservingPolicy.update_repeated`); 0 for one reading.
        """
        return 0

    @property
    def state_width(self) -> int:
        """Numbers that it remembers of each token, W."""
        return 0

    @property
    def state_dtype(self) -> torch.dtype:
        """Type in which the state is kept between two eviction steps."""
        return torch.float32

    @property
    def head_floor(self) -> float:
        """Share of its own budget that each head keeps where several share one, if the user asks
        for no more.
        """
        return 0.0

    @property
    def sinks(self) -> int:
        """First tokens of the text that always stay, unless the user says otherwise."""
        return 0

    def check_model(self, layers: int, kv_heads: int) -> None:  # noqa: B027 (most serve every model)
        """Raises PolicyError if it cannot serve a model of so many layers that evict, with so many
        KV heads each.
        """

    def protect_recent(self, limit: int) -> int:
        """Newest tokens that always stay, out of `limit` tokens a head, unless the user says
        otherwise.
        """
        return 0

    def num_carried_queries(self, seen: int) -> int:
        """Newest queries to show again at the next eviction step, after one at `seen` tokens."""
        return 0


class ScorePolicy(EvictionPolicy):
    """A policy that scores tokens by their keys, values and positions alone.

    A complete policy:

        @register_policy
        @dataclass(frozen=True)
        class ShortKeys(ScorePolicy):
            name: ClassVar[str] = "short_keys"

            def score(self, tokens: HeadTokens) -> Tensor:
                return -tokens.keys.float().norm(dim=-1)
    """

    @abstractmethod
    def score(self, tokens: HeadTokens) -> Tensor:
        """How much each token is worth keeping; higher scores indicate more important tokens.

        tokens: N tokens of one KV head, oldest first: keys and values `[N, D]`, positions `[N]`.
        Returns `[N]`, any float type, on the device of the keys. Tokens that score NaN go first.
        """


class ObservingPolicy(EvictionPolicy):
    """A policy that looks at the attention which the newest queries paid to the tokens.

    At each eviction step `update_state` sees the attention of all queries since the last one, and
    `score` the new state. A complete policy, which sums attention up:

        @register_policy
        @dataclass(frozen=True)
        class Attended(ObservingPolicy):
            name: ClassVar[str] = "attended"

            @property
            def state_width(self) -> int:
                return 1

            def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
                return observation.fold(Sum(), tokens.state)

            def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
                return tokens.state[:, 0]
    """

    observes: ClassVar[bool] = True

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        """The new state `[N, W]` of the tokens; by default as it was.

        tokens: N tokens of one KV head, oldest first; the state `[N, W]` of tokens that came since
        the last eviction step is 0. observation: of the same tokens; `Observation.fold` and
        `Observation.rows` give the attention paid to them. Returns any float type.
        """
        return tokens.state

    @abstractmethod
    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        """How much each token is worth keeping; higher scores indicate more important tokens.

        tokens: N tokens of one KV head, oldest first, with the state `[N, W]` that `update_state`
        gave, in `state_dtype`. observation: of the same tokens. Returns `[N]`, any float type, on
        the device of the keys. Tokens that score NaN go first.
        """

    def update_repeated(
        self, tokens: HeadTokens, observation: Observation, span: tuple[int, int], sinks: int
    ) -> Tensor:
        """The new state `[N, W]` while a chunk of the text is repeated, where a policy `repeats`.

        tokens: as of `update_state`, the repetition so far at the end. observation: its newest
        queries, the repetition beginning at `new_start`. span: positions of the chunk. sinks:
        tokens before the text.
        """
        raise NotImplementedError(f"{type(self).__name__} repeats nothing")

    @property
    def scores_layer_at_once(self) -> bool:
        """Whether scores follow from state and position alone, so that `score_layer` is called
        instead of `score`.
        """
        return False

    def score_layer(self, heads: Sequence[HeadTokens], seen: int, layer: int) -> list[Tensor]:
        """Scores `[N_g]` of all G heads of a layer together, where `scores_layer_at_once`.

        heads: the tokens of each; keys and values may be 8-bit. seen: tokens of the text so far.
        layer: its number among those that evict.
        """
        raise NotImplementedError(f"{type(self).__name__} scores head by head")


def check_whole(name: str, value: int, least: int) -> None:
    """Raises PolicyError if a policy's setting is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PolicyError(f"{name} must be a whole number of at least {least}, not {value!r}")
