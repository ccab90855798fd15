"""The attention that each token received over time, as Hann-windowed STFT magnitudes averaged by an
EMA.

`rows` [Q, N] is the attention of Q queries, in the order of time, to N tokens: already the mean
over the query heads of a group. `ema` [N, w] is what a policy remembers per token, w = bins for
each decay. Knows nothing about where the attention came from, and does not normalise (see
`network.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from namm_llm.errors import NammFileError

# Floats of one block of frames: 2 MiB, so that a block stays in one core's cache however many
# tokens there are.
BLOCK_FLOATS = 2**19


@dataclass(frozen=True)
class Spectrogram:
    """Settings of the short-time Fourier transform and of its moving average (arXiv 2410.13166,
    section 3).
    """

    n_fft: int = 32
    hop: int = 16
    decay: float = 0.99  # of the average, per query; a hop decays by decay**hop
    further: tuple[
        float, ...
    ] = ()  # decays of further averages, each of which costs as much memory as the first
    lowest: int | None = (
        # only so many of the lowest frequencies: 1 is mean attention, 0 leaves the spectrogram out
        None
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "further", tuple(self.further))  # a file has lists
        if self.hop < 1 or self.n_fft != 2 * self.hop:
            raise NammFileError(
                f"The spectrogram needs n_fft = 2 * hop, got n_fft {self.n_fft} and hop {self.hop}."
            )
        if self.lowest is not None and not 0 <= self.lowest <= self.n_fft // 2 + 1:
            raise NammFileError(
                f"The spectrogram has {self.n_fft // 2 + 1} frequencies, it cannot keep {self.lowest}."
            )
        for decay in self.decays:
            if not 0.0 <= decay < 1.0:
                raise NammFileError(
                    f"The spectrogram's decay must be at least 0 and below 1, got {decay}."
                )

    @property
    def bins(self) -> int:
        """Frequencies of one frame."""
        return self.n_fft // 2 + 1 if self.lowest is None else self.lowest

    @property
    def decays(self) -> tuple[float, ...]:
        """Of all averages, the first one first."""
        return (self.decay, *self.further)

    @property
    def width(self) -> int:
        """Numbers remembered of one token: `bins` for each decay, one average after the other."""
        return self.bins * len(self.decays)

    def each(self) -> Iterator["Spectrogram"]:
        """The settings of each average by itself."""
        return (replace(self, decay=decay, further=()) for decay in self.decays)

    def update(self, ema: Tensor, rows: Tensor, peak: Tensor | None = None) -> Tensor:
        """Fold h hops of attention into the average: per hop, `ema <- a * ema + (1 - a) * |STFT|`,
        a = decay**hop.

        ema: [N, width], zeros for a token that was born since the last update. rows: [hop * (h +
        1), N], query-major, any float type. The first `hop` rows are the carry: the last hop of the
        previous update, zeros at the very start and for tokens born since. Then come h complete
        hops; h may be 0. peak: [N, bins], float32; raised in place to the largest magnitudes.
        Returns [N, width] in float32, whatever came in.
        """
        hops, rest = divmod(rows.shape[0] - self.hop, self.hop)  # the first hop is the carry
        assert hops >= 0, f"{rows.shape[0]} rows lack a carry of {self.hop}"
        assert rest == 0, f"{rows.shape[0]} rows are not whole hops of {self.hop}"
        assert ema.shape == (rows.shape[1], self.width), (
            f"ema {tuple(ema.shape)}, rows {tuple(rows.shape)}"
        )
        block = max(1, BLOCK_FLOATS // (2 * max(1, self.bins) * max(1, rows.shape[1])))
        average = ema.float().T.clone(
            memory_format=torch.contiguous_format
        )  # [width, N], as the magnitudes lie
        averages = average.view(len(self.decays), self.bins, rows.shape[1])
        with torch.autocast(rows.device.type, enabled=False):
            for first in range(0, hops, block):
                last = min(first + block, hops)
                magnitudes = self._magnitudes(rows[first * self.hop : (last + 1) * self.hop])
                for hop in magnitudes:
                    for at, decay in enumerate(
                        self.decays
                    ):  # views of an iteration could not be written while training
                        averages[at].lerp_(hop, 1.0 - decay**self.hop)
                if peak is not None:
                    torch.maximum(peak, magnitudes.amax(0).T, out=peak)
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
