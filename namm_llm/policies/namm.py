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
from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.namm.novelty import repeated
from namm_llm.policies.base import RECENT, ObservingPolicy
from namm_llm.tokens import HeadTokens

# chosen on validation documents: docs/log/2026-11-30-namm-for-smollm2.md
_HEAD_FLOOR = 0.25
_SINKS = 4  # as StreamingLLM keeps (arXiv 2309.17453)
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
    def label(self) -> str:
        return f"{self.name} {self.namm.fingerprint}"

    @property
    def rotates(self) -> bool:
        return self.namm.settings.replay

    @property
    def state_width(self) -> int:
        return self.namm.settings.state_width

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float32 if self.exact else torch.float16

    @property
    def head_floor(self) -> float:
        return _HEAD_FLOOR if self.namm.settings.heads else 0.0

    @property
    def sinks(self) -> int:
        # a head that is given little would lose the tokens that its attention rests on
        return _SINKS if self.namm.settings.heads else 0

    def protect_recent(self, limit: int) -> int:
        return min(RECENT, limit // 8)

    def num_carried_queries(self, seen: int) -> int:
        # the last whole hop is the left half of the next frame, and is replayed again; the queries
        # of a hop that is not yet whole wait for the rest of it
        spectrogram = self.namm.settings.spectrogram
        return spectrogram.hop + (seen % spectrogram.hop if spectrogram.bins else 0)

    def update_state(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        settings = self.namm.settings
        spectrogram = settings.spectrogram
        average, similar, norms, replayed = torch.split(
            tokens.state.float(),
            [spectrogram.bins, 2 * settings.novelty, 2 * settings.norms, settings.replay],
            dim=1,
        )
        if spectrogram.bins:
            average = observation.fold(spectrogram, average)
        if settings.novelty:
            similar = torch.stack([repeated(tokens.keys), repeated(tokens.values)], 1)
        if settings.norms:
            vectors = (tokens.keys, tokens.values)
            norms = torch.stack([vector.float().norm(dim=1) for vector in vectors], 1)
        if settings.replay:
            start = observation.new_start - spectrogram.hop
            largest = observation.max_replayed_attention(start)
            replayed = torch.maximum(replayed, largest[:, None])
        return torch.cat([average, similar, norms, replayed], dim=1)

    def check_model(self, layers: int, kv_heads: int) -> None:
        heads = self.namm.settings.heads
        if heads and heads != layers * kv_heads:
            raise PolicyError(
                f"this NAMM serves models of {heads} KV heads in all layers together, and this one "
                f"has {layers} layers of {kv_heads}: choose another policy, or distil one for it."
            )

    def score(self, tokens: HeadTokens, observation: Observation) -> Tensor:
        ages = observation.query_stop - 1 - tokens.positions
        namm = self._on_device_of(ages)
        return namm.scores(namm.features(tokens.state, ages, span=observation.query_stop))

    @property
    def scores_layer_at_once(self) -> bool:
        return not self.namm.attention_dim  # its attention is within one head

    def score_layer(self, heads: Sequence[HeadTokens], seen: int, layer: int) -> list[Tensor]:
        lengths = [len(head) for head in heads]
        ages = seen - 1 - torch.cat([head.positions for head in heads])
        namm = self._on_device_of(ages)
        state = torch.cat([head.state for head in heads])
        features = namm.features(state, ages, lengths, seen)
        parts = torch.split(features, _TOGETHER)
        numbers: Sequence[Tensor | None] = [None] * len(parts)
        if namm.settings.heads:
            first = layer * len(heads)
            numbered = torch.arange(first, first + len(heads), device=ages.device)
            counts = torch.tensor(lengths, device=ages.device)
            numbers = torch.split(numbered.repeat_interleave(counts), _TOGETHER)
        scores = [namm.scores(*part) for part in zip(parts, numbers, strict=True)]
        return list(torch.split(torch.cat(scores), lengths))

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
