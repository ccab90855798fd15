"""What a NAMM may remember of a token beyond the published moving average, which forgets within
some hundred tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.errors import NammFileError

SMALLEST_ATTENTION = 1e-4  # below it attention means nothing, and a logarithm would magnify it


@dataclass(frozen=True)
class Memory:
    """Which columns stand behind the average in a token's state. All but `past` are maxima over its
    whole life, so they never forget.

    peak: of each frequency's magnitudes. replay: of the attention that it gets when the text is
    read again (`Observation.again`); one number. reach: so many tokens to either side show theirs
    as features too, which costs no memory. past: the token's own scores at earlier updates; what is
    left of their moving average at the next update, 0 for no such column. probed: of the attention
    that probes pay to it; one number.
    """

    peak: bool = False
    replay: bool = False
    reach: int = 0
    past: float = 0.0
    probed: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.past < 1.0:
            raise NammFileError(
                f"past must be at least 0 and below 1, it is what is left of a token's past scores, got {self.past}."
            )
        if self.reach < 0 or (self.reach and not self.replay):
            raise NammFileError(
                f"reach {self.reach} needs a second reading (replay) to reach for, and cannot be below 0."
            )

    def width(self, bins: int) -> int:
        """Columns of the state, of a spectrogram with so many bins."""
        return sum(self.columns(bins))

    def columns(self, bins: int) -> tuple[int, int, int, int]:
        """How many of them are past scores, peaks, of probes, of the second reading: in the order
        in which they stand.
        """
        return bool(self.past), self.peak * bins, self.probed, self.replay


NONE = Memory()


def scaled(state: Tensor, averages: int) -> Tensor:
    """A state `[..., N, w]` in float32, the averages as they are, the maxima behind them, which
    span decades, as their logarithms.
    """
    known, maxima = torch.split(state.float(), [averages, state.shape[-1] - averages], dim=-1)
    return torch.cat([known, maxima.clamp_min(SMALLEST_ATTENTION).log()], dim=-1)
