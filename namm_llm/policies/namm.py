"""The NAMM as an eviction policy: spectrogram of the attention a token received, averaged over
time, scored by the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import Observation
from namm_llm.errors import PolicyError
from namm_llm.namm import Namm
from namm_llm.policies.base import RECENT, EvictionPolicy
from namm_llm.tokens import HeadTokens

_TOGETHER = 8192  # tokens scored at a time: what the network makes of them stays in a core's cache


@dataclass(frozen=True)
class NammPolicy(EvictionPolicy):
    """Remembers the averaged spectrogram (17 numbers a token for each decay) and what the `Namm`'s
    memory names, and scores with it (arXiv 2410.13166).

    exact: keep the state in float32, as the published code does, instead of in half precision.
    probes: token ids of each, for a NAMM that was made for them.
    """

    name: ClassVar[str] = "namm"
    observes: ClassVar[bool] = True
    comparable: ClassVar[bool] = True
    threshold: ClassVar[float | None] = 0.0
    namm: Namm
    exact: bool = False
    probes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", tuple(map(tuple, self.probes)))  # a file has lists
        if self.probes and not self.namm.takes_probes:
            raise PolicyError(
                "this NAMM was not made for probes; one that is comes from namm-llm train distil --family probes"
            )
        if not all(self.probes):
            raise PolicyError("a probe without tokens finds nothing; leave it out")

    @property
    def takes_probes(self) -> bool:
        return self.namm.takes_probes

    @property
    def probe_texts(self) -> tuple[str, ...]:
        return self.namm.probes.texts

    @property
    def probe_ids(self) -> tuple[tuple[int, ...], ...]:
        return self.probes

    def probes_at(self, update: int) -> bool:
        return bool(self.probes) and update % self.namm.probes.every == 0

    def with_probes(self, ids: Sequence[Sequence[int]]) -> NammPolicy:
        return replace(self, probes=tuple(map(tuple, ids)))

    @property
    def replays(self) -> bool:
        return self.namm.memory.replay

    @property
    def state_width(self) -> int:
        return self.namm.state_width

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float32 if self.exact else torch.float16

    @property
    def hop(self) -> int:
        """Queries of one step of the spectrogram."""
        return self.namm.spectrogram.hop

    def protect_recent(self, limit: int) -> int:
        return min(RECENT, limit // 8)

    def carry(self, seen: int) -> int:
        # the last whole hop is the left half of the next frame; the queries of a hop that is not
        # yet whole wait for the rest of it
        return self.hop + seen % self.hop

    def update(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        namm = self.namm
        ema, past, peak, probed, replay = torch.split(
            segment.state.float(), list(namm.columns), dim=1
        )
        if namm.spectrogram.bins:
            peak = peak.clone()
            ema = observation.spectrogram(namm.spectrogram, ema, peak if namm.memory.peak else None)
        if namm.probes.averaged and observation.probes is not None:
            ema = namm.spectrogram.update(
                ema, self._hops(observation.probes), peak if namm.memory.peak else None
            )
        if namm.memory.probed and observation.probes is not None:
            probed = torch.maximum(probed, observation.probes.most()[:, None])
        if namm.memory.replay:
            replay = torch.maximum(
                replay,
                observation.max_replayed_attention(observation.fresh - self.hop, observation.stop)[
                    :, None
                ],
            )
        return torch.cat([ema, past, peak, probed, replay], dim=1)

    def _hops(self, probes: Observation) -> Tensor:
        """What probes paid, as whole hops of a time of its own: nothing before it, and nothing in
        the rest of the last hop.
        """
        rows = probes.rows(probes.first, probes.stop)
        return torch.nn.functional.pad(rows, (0, 0, self.hop, -len(rows) % self.hop))

    def remember(self, state: Tensor, scores: Tensor) -> Tensor:
        left = self.namm.memory.past
        if not left:
            return state
        column = self.namm.columns[0]
        limit = torch.finfo(state.dtype).max
        state = state.clone()
        state[:, column] = (
            left * state[:, column].float() + (1.0 - left) * scores.to(state.device)
        ).clamp(-limit, limit)
        return state

    def score(self, segment: HeadTokens, observation: Observation | None) -> Tensor:
        assert observation is not None
        ages = observation.stop - 1 - segment.positions
        namm = self._beside(ages)
        return namm.scores(namm.features(segment.state, ages, span=observation.stop))

    @property
    def scores_layer_at_once(self) -> bool:
        return not self.namm.hidden  # whose attention is within one head

    def score_layer(self, segments: Sequence[HeadTokens], stop: int) -> list[Tensor]:
        lengths = [len(segment) for segment in segments]
        ages = stop - 1 - torch.cat([segment.positions for segment in segments])
        namm = self._beside(ages)
        features = namm.features(
            torch.cat([segment.state for segment in segments]), ages, lengths, stop
        )
        scores = torch.cat([namm.scores(part) for part in torch.split(features, _TOGETHER)])
        return list(torch.split(scores, lengths))

    def _beside(self, tensor: Tensor) -> Namm:
        if self.namm.theta.device == tensor.device:
            return self.namm
        if tensor.device not in self._elsewhere:
            self._elsewhere[tensor.device] = self.namm.to(tensor.device)
        return self._elsewhere[tensor.device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, Namm]:
        """Copies beside the caches of other devices: to make one, the host waits."""
        return {}
