"""What a NAMM may remember of a token beyond the published moving average, which forgets within some hundred tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.errors import NammFileError

SMALLEST_ATTENTION = 1e-4  # below it attention means nothing, and a logarithm would magnify it


@dataclass(frozen=True)
class Memory:
    """Which columns stand behind the average in a token's state. All are maxima over its whole life, so they never forget.

    peak: of each frequency's magnitudes. reread: of the attention that it gets when the text is read again (`Observation.again`); one
    number. reach: so many tokens to either side show theirs as features too, which costs no memory.
    """

    peak: bool = False
    reread: bool = False
    reach: int = 0

    def __post_init__(self) -> None:
        if self.reach < 0 or (self.reach and not self.reread):
            raise NammFileError(f"reach {self.reach} needs a second reading (reread) to reach for, and cannot be below 0.")

    def width(self, bins: int) -> int:
        """Columns of the state, of a spectrogram with so many bins."""
        return self.peak * bins + self.reread


NONE = Memory()


def scaled(state: Tensor, bins: int) -> Tensor:
    """A state `[..., N, w]` in float32, the averages as they are, the maxima behind them, which span decades, as their logarithms."""
    averages, maxima = torch.split(state.float(), [bins, state.shape[-1] - bins], dim=-1)
    return torch.cat([averages, maxima.clamp_min(SMALLEST_ATTENTION).log()], dim=-1)
