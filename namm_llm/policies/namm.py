"""The NAMM as an eviction policy: spectrogram of the attention a token received, averaged over time, scored by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from namm_llm.attention.observation import BLOCK, Observation
from namm_llm.namm import Namm
from namm_llm.policies.base import EvictionPolicy
from namm_llm.ragged import Segment


@dataclass(frozen=True)
class NammPolicy(EvictionPolicy):
    """Remembers the averaged spectrogram (17 numbers a token) and scores with a `Namm` (arXiv 2410.13166).

    exact: keep the state in float32, as the published code does, instead of in half precision.
    """

    name: ClassVar[str] = "namm"
    observes: ClassVar[bool] = True
    state_width: ClassVar[int] = 17
    threshold: ClassVar[float | None] = 0.0
    namm: Namm
    exact: bool = False

    @property
    def state_dtype(self) -> torch.dtype:
        return torch.float32 if self.exact else torch.float16

    @property
    def hop(self) -> int:
        """Queries of one step of the spectrogram."""
        return self.namm.spectrogram.hop

    def carry(self, seen: int) -> int:
        # the last whole hop is the left half of the next frame; the queries of a hop that is not yet whole wait for the rest of it
        return self.hop + seen % self.hop

    def update(self, segment: Segment, observation: Observation | None) -> Tensor:
        assert observation is not None
        start, stop = (at // self.hop * self.hop for at in (observation.fresh, observation.stop))
        ema = segment.state.float()
        if start == stop:
            return segment.state
        left = observation.rows(start - self.hop, start)
        for rows in observation.blocks(start, stop, BLOCK // self.hop * self.hop or self.hop):
            rows = torch.cat([left, rows])
            ema = self.namm.spectrogram.update(ema, rows)
            left = rows[-self.hop :]
        return ema.to(segment.state.dtype)

    def score(self, segment: Segment, observation: Observation | None) -> Tensor:
        assert observation is not None
        ages = observation.stop - 1 - segment.positions
        namm = self.namm if self.namm.theta.device == ages.device else self.namm.to(ages.device)
        return namm.scores(namm.features(segment.state, ages))
