"""The attention that each token received over time, as Hann-windowed STFT magnitudes averaged by an
EMA.

`rows` [Q, N] is the attention of Q queries, in the order of time, to N tokens: already the mean
over the query heads of a group. Knows nothing about where the attention came from, and does not
normalise (see `network.py`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from namm_llm.errors import NammFileError

# Floats of one block of frames: 2 MiB, so that a block stays in one core's cache however many
# tokens there are.
BLOCK_FLOATS = 2**19
_SMALLEST_TILE = 16  # queries that tensor cores multiply at a time


@dataclass(frozen=True)
class Spectrogram:
    """A fold of attention into averaged magnitudes of a short-time Fourier transform (arXiv
    2410.13166, section 3); see `namm_llm.attention.fold.Fold`.

    Raises NammFileError for settings that make no sense.
    """

    n_fft: int = 32
    """Queries of one frame; twice the hop."""
    hop: int = 16
    """Queries from one frame to the next."""
    decay: float = 0.99
    """Of the average, per query; a hop decays by decay**hop."""
    num_bins: int | None = None
    """Lowest frequencies to keep; None for all n_fft / 2 + 1, 1 is mean attention, 0 leaves the
    spectrogram out.
    """

    def __post_init__(self) -> None:
        if self.hop < 1 or self.n_fft != 2 * self.hop:
            raise NammFileError(
                f"The spectrogram needs n_fft = 2 * hop, got n_fft {self.n_fft} and hop {self.hop}."
            )
        frequencies = self.n_fft // 2 + 1
        if self.num_bins is not None and not 0 <= self.num_bins <= frequencies:
            raise NammFileError(
                f"The spectrogram has {frequencies} frequencies, it cannot keep {self.num_bins}."
            )
        if not 0.0 <= self.decay < 1.0:
            raise NammFileError(
                f"The spectrogram's decay must be at least 0 and below 1, got {self.decay}."
            )

    @property
    def bins(self) -> int:
        """Frequencies of one frame: numbers remembered of one token."""
        return self.n_fft // 2 + 1 if self.num_bins is None else self.num_bins

    @property
    def overlap(self) -> int:
        """Queries before the first new hop that its frame needs again."""
        return self.hop

    @property
    def kernel(self) -> str | None:
        """Its kernel's name in `attention.backend`; None for hops that no kernel is made for."""
        fits = self.hop >= _SMALLEST_TILE and self.hop & (self.hop - 1) == 0
        return "spectrogram" if fits else None

    def kernel_arguments(self, device: torch.device) -> dict[str, Any]:
        """What the kernel has to know of it."""
        table = basis(self.n_fft, self.bins, device)
        return {"basis": table, "hop": self.hop, "decay": self.decay**self.hop}

    def update(self, state: Tensor, rows: Tensor) -> Tensor:
        """Fold h hops of attention into the average: per hop, `s <- a * s + (1 - a) * |STFT|` with
        a = decay**hop.

        state: [N, bins], zeros for a token that was born since the last eviction step. rows: [hop *
        (h + 1), N], any float type. The first `hop` rows are the last hop of the previous step,
        zeros at the very start and for tokens born since. Then come h complete hops; h may be 0.
        Returns [N, bins] in float32, whatever came in.
        """
        hops, rest = divmod(rows.shape[0] - self.hop, self.hop)
        assert hops >= 0, f"{rows.shape[0]} rows lack a carry of {self.hop}"
        assert rest == 0, f"{rows.shape[0]} rows are not whole hops of {self.hop}"
        assert state.shape == (rows.shape[1], self.bins), (
            f"state {tuple(state.shape)}, rows {tuple(rows.shape)}"
        )
        block = max(1, BLOCK_FLOATS // (2 * max(1, self.bins) * max(1, rows.shape[1])))
        # [bins, N], as the magnitudes lie
        average = state.float().T.clone(memory_format=torch.contiguous_format)
        with torch.autocast(rows.device.type, enabled=False):
            for first in range(0, hops, block):
                last = min(first + block, hops)
                for hop in self._magnitudes(rows[first * self.hop : (last + 1) * self.hop]):
                    average.lerp_(hop, 1.0 - self.decay**self.hop)
        return average.T

    def _magnitudes(self, rows: Tensor) -> Tensor:
        """[hop * (h + 1), N] -> [h, bins, N]."""
        # neighbouring frames share a hop: a strided view, nothing is copied
        frames = rows.float().unfold(0, self.n_fft, self.hop).mT  # [h, n_fft, N]
        spectrum = basis(self.n_fft, self.bins, rows.device) @ frames  # [h, 2 * bins, N]
        real, imaginary = torch.split(spectrum.square(), self.bins, dim=1)
        return (real + imaginary).sqrt_()


@lru_cache(maxsize=16)
def basis(n_fft: int, bins: int, device: torch.device) -> Tensor:
    """The periodic Hann window times cosine, then times sine, of the lowest frequencies: [2 * bins,
    n_fft].
    """
    # a tensor made in inference mode could never meet autograd, and this one is kept
    with torch.inference_mode(False):
        time = torch.arange(n_fft, dtype=torch.float64)
        window = 0.5 * (1.0 - torch.cos(2.0 * torch.pi * time / n_fft))
        angle = 2.0 * torch.pi / n_fft * torch.outer(torch.arange(bins, dtype=torch.float64), time)
        return torch.cat([angle.cos() * window, angle.sin() * window]).float().to(device)
