"""`NammSettings`: what a NAMM remembers of a token and which features it makes of it.

A new feature is a field here, its own file, and a line in `Namm.features`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from namm_llm.errors import NammFileError
from namm_llm.namm.recency import Recency
from namm_llm.namm.spectrogram import Spectrogram

SMALLEST_ATTENTION = 1e-4  # less means nothing, and a logarithm would magnify it
SMALLEST_AVERAGE = 1e-5  # of a token among thousands, half precision still tells it from 0


@dataclass(frozen=True)
class NammSettings:
    """The form of a NAMM; the defaults are the published one (arXiv 2410.13166).

    A token's state `[W]` is the averaged spectrogram, then with `novelty` and with `norms` two more
    numbers each, and with `replay` one.
    Raises NammFileError for settings that contradict each other.
    """

    spectrogram: Spectrogram = Spectrogram()  # noqa: RUF009 (frozen)
    """Short-time Fourier transform of the attention received, and its moving average."""
    recency: Recency = Recency()  # noqa: RUF009 (frozen)
    """Embedding of the token's age."""
    replay: bool = False
    """Remember the largest attention under query replay, a maximum over the token's whole life."""
    neighbour_radius: int = 0
    """Tokens to either side whose replayed attention is a feature too; costs no memory."""
    mlp_hidden: int = 0
    """Units of a hidden layer beside the linear score; the published NAMM has none."""
    norms: bool = False
    """Remember the length of the token's key and of its value."""
    heads: int = 0
    """KV heads of all layers of the one model that it serves, each of which has a factor and a
    summand for its scores; 0 for a NAMM that serves every model.
    """

    novelty: bool = False
    """Remember how like the token's key, and its value, are to a newer one's: what comes again may
    go."""
    relative: bool = False
    """See each number beside those of the head's other tokens, by its logarithm where it is an
    average, and the age as a share of the text. So nothing depends on how long a text is, or how
    its model spreads attention, and the statistics are not used."""

    def __post_init__(self) -> None:
        if self.neighbour_radius < 0 or (self.neighbour_radius and not self.replay):
            raise NammFileError(
                f"neighbour_radius must be 0 or more, and above 0 only with replay, got "
                f"{self.neighbour_radius}."
            )
        if self.relative and self.neighbour_radius:
            raise NammFileError("neighbours of a relative NAMM are not known: leave one out.")
        if self.heads < 0:
            raise NammFileError(f"heads must be 0 or more, got {self.heads}.")

    @property
    def state_width(self) -> int:
        """Numbers remembered of one token, W."""
        return self.spectrogram.bins + 2 * self.novelty + 2 * self.norms + self.replay

    @property
    def feature_count(self) -> int:
        """Features of one token, d."""
        own = self.relative + self.state_width
        return self.recency.size + own + 2 * self.neighbour_radius

    def scaled(self, state: Tensor) -> Tensor:
        """A state `[..., N, W]` in float32: averages and similarities as they are, norms and
        replayed attention, which spans decades, as their logarithms. Means and variances are taken
        of it.
        """
        bins = self.spectrogram.bins
        averages, similar, others = torch.tensor_split(
            state.float(), [bins, bins + 2 * self.novelty], dim=-1
        )
        if self.relative:
            averages = averages.clamp_min(SMALLEST_AVERAGE).log()
        return torch.cat([averages, similar, others.clamp_min(SMALLEST_ATTENTION).log()], dim=-1)

    def header(self) -> dict[str, Any]:
        """The settings as plain values for a file; what is off by default is left out."""
        header = {name: value for name, value in asdict(self).items() if value}
        spectrogram = asdict(self.spectrogram).items()
        return {**header, "spectrogram": {name: v for name, v in spectrogram if v is not None}}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> NammSettings:
        """The inverse of `header`. Raises NammFileError for settings that are not known here: a
        later version may have added them, and without them the numbers would mean something else.
        """
        kinds = {"spectrogram": Spectrogram, "recency": Recency}
        unknown = sorted(set(header) - {field.name for field in fields(cls)})
        try:
            for part, kind in kinds.items():
                names = set(header[part]) - {field.name for field in fields(kind)}
                unknown += [f"{part}.{name}" for name in sorted(names)]
            if not unknown:
                parts = {part: kind(**header[part]) for part, kind in kinds.items()}
                return cls(**{**header, **parts})
        except (KeyError, TypeError, ValueError) as error:
            raise NammFileError("its header is damaged.") from error
        raise NammFileError(
            f"it was made with {', '.join(unknown)}, which this namm-llm does not know: "
            "update namm-llm."
        )


PUBLISHED = NammSettings()
