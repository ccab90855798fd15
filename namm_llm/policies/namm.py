"""The NAMM as an eviction policy: spectrogram of the attention a token received, averaged over
time, scored by the network (arXiv 2410.13166).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.namm import Namm
from namm_llm.policies.base import RECENT, ObservingPolicy
from namm_llm.tokens import HeadTokens

_TOGETHER = 8192  # tokens scored at a time: their hidden layer stays in a core's cache


@dataclass(frozen=True)
class NammPolicy(ObservingPolicy):
    """Keeps the tokens that a `Namm` scores highest; without a budget those of score 0 or more, the
    published rule.

    It remembers the averaged spectrogram of each token (17 numbers) and whatever else the NAMM's
    settings name.
    """

    name: ClassVar[str] = "namm"
    comparable: ClassVar[bool] = True
    threshold: ClassVar[float | None] = 0.0
    namm: Namm
    """The network."""
    exact: bool = False
    """Keep the state in float32, as the published code does, instead of in half precision."""

    @property
    def rotates(self) -> bool:
        return self.namm.settings.replay

    @property
    def state_width(self) -> int:
        return self.namm.settings.state_width

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float32 if self.exact else torch.float16

    def protect_recent(self, limit: int) -> int:
        return min(RECENT, limit // 8)

    def num_carried_queries(self, seen: int) -> int:
        # the last whole hop is the left half of the next frame; the queries of a hop that is not
        # yet whole wait for the rest of it
        hop = self.namm.settings.spectrogram.hop
        return hop + seen % hop

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        settings = self.namm.settings
        spectrogram = settings.spectrogram
        average, replayed = torch.split(
            tokens.state.float(), [spectrogram.bins, settings.replay], dim=1
        )
        if spectrogram.bins:
            average = observation.fold(spectrogram, average)
        if settings.replay:
            start = observation.new_start - spectrogram.hop
            largest = observation.max_replayed_attention(start)
            replayed = torch.maximum(replayed, largest[:, None])
        return torch.cat([average, replayed], dim=1)

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        ages = observation.query_stop - 1 - tokens.positions
        namm = self._on_device_of(ages)
        return namm.scores(namm.features(tokens.state, ages, span=observation.query_stop))

    @property
    def scores_layer_at_once(self) -> bool:
        return not self.namm.attention_dim  # its attention is within one head

    def score_layer(self, heads: Sequence[HeadTokens], seen: int) -> list[Tensor]:
        lengths = [len(head) for head in heads]
        ages = seen - 1 - torch.cat([head.positions for head in heads])
        namm = self._on_device_of(ages)
        state = torch.cat([head.state for head in heads])
        features = namm.features(state, ages, lengths, seen)
        scores = torch.cat([namm.scores(part) for part in torch.split(features, _TOGETHER)])
        return list(torch.split(scores, lengths))

    def _on_device_of(self, tensor: Tensor) -> Namm:
        if self.namm.theta.device == tensor.device:
            return self.namm
        if tensor.device not in self._copies:
            self._copies[tensor.device] = self.namm.to(tensor.device)
        return self._copies[tensor.device]

    @cached_property
    def _copies(self) -> dict[torch.device, Namm]:
        """The network on the other devices of a cache: to make a copy, the host waits."""
        return {}
