"""The forms of NAMM that can be made: a name, and zeros of that form."""

from __future__ import annotations

from namm_llm import Namm, Spectrogram, UsageError
from namm_llm.namm import NammSettings, Recency

_REPLAY = NammSettings(Spectrogram(num_bins=0), Recency(0), replay=True, mlp_hidden=32)

DEFAULT = "neighbours"
FAMILIES = {
    # the replayed attention of a token and of four to either side: attention paid the first time
    # and age add nothing
    "neighbours": Namm.zeros(
        0,
        NammSettings(
            Spectrogram(num_bins=0), Recency(0), replay=True, neighbour_radius=4, mlp_hidden=32
        ),
    ),
    "replay": Namm.zeros(0, _REPLAY),
    "published": Namm.zeros(),
    "published-linear": Namm.zeros(0),
}


def family(name: str) -> Namm:
    """Zeros of that form. UsageError if there is none of that name."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise UsageError(f"there is no family {name!r}; there are: {', '.join(FAMILIES)}") from None
