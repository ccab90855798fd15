"""A token's age as sines and cosines.

ages [...] -> [..., size]. Computed directly: no table, and no oldest age.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from namm_llm.errors import NammFileError


@dataclass(frozen=True)
class Recency:
    """Settings of the embedding of a token's age. Raises NammFileError for sizes that make no
    sense.
    """

    size: int = 8
    """Numbers of the embedding, even; 0 for none."""
    max_freq: float = 50_000.0
    """Wavelengths go from 2 pi tokens to about 2 pi times this; the reference's name, though it is
    a period.
    """

    def __post_init__(self) -> None:
        if self.size < 0 or self.size % 2:
            raise NammFileError(f"The recency embedding needs an even size, got {self.size}.")
        if not 1.0 <= self.max_freq < float("inf"):
            raise NammFileError(
                "The recency embedding's max_freq must be finite and at least 1, got "
                f"{self.max_freq}."
            )


PUBLISHED = Recency()


def recency(ages: Tensor, settings: Recency = PUBLISHED) -> Tensor:
    """Sines, then cosines, of age * max_freq^(-2k / size), k = 0 .. size/2 - 1 (arXiv 2410.13166,
    section 3).

    ages: [...], in tokens: the newest token's position minus the token's own. Returns [..., size]
    in float32.
    """
    device = (
        torch.device("cpu") if ages.device.type == "mps" else ages.device
    )  # which has no float64
    exponents = torch.arange(settings.size // 2, dtype=torch.float64, device=device) * (
        -2.0 / max(1, settings.size)
    )
    # float32 angles of a million and more are a sixteenth of a radian apart
    angles = ages.to(device).double()[..., None] * settings.max_freq**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float().to(ages.device)
