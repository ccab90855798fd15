"""The forms of NAMM that can be made: a name, and zeros of that form. What each one is worth on
namm-tiny is in benchmarks/README.md.
"""

from __future__ import annotations

from namm_llm.errors import UsageError
from namm_llm.namm import Memory, Namm, Probes, Recency, Spectrogram

_NONE, _MEAN = Spectrogram(lowest=0), Spectrogram(lowest=1)
_AGELESS = Recency(0)
_AGAIN = Memory(replay=True)
_AROUND = Memory(replay=True, reach=4)

# they ask for what any reader might want, in no wording of the evaluation's questions
GENERAL = (
    "Summarize the text.",
    "Repeat everything that was said so far.",
    "Give every detail worth keeping.",
)

DEFAULT = "neighbours"
FAMILIES = {
    # the second reading of a token and of four to either side: attention of the first reading and
    # age add nothing (docs/log.md)
    "neighbours": Namm.zeros(0, spectrogram=_NONE, recency=_AGELESS, memory=_AROUND, units=32),
    "neighbours-linear": Namm.zeros(0, spectrogram=_NONE, recency=_AGELESS, memory=_AROUND),
    "replay": Namm.zeros(0, spectrogram=_NONE, recency=_AGELESS, memory=_AGAIN, units=32),
    "replay-attention": Namm.zeros(16, spectrogram=_NONE, recency=_AGELESS, memory=_AGAIN),
    "published": Namm.zeros(),
    "published-mean": Namm.zeros(spectrogram=_MEAN),
    "published-linear": Namm.zeros(0),
    "published-ageless": Namm.zeros(recency=_AGELESS),
    # beside the published average, which forgets half in 70 tokens, two that forget half in 700 and
    # in 7 000
    "rates": Namm.zeros(spectrogram=Spectrogram(further=(0.999, 0.9999))),
    "probes": Namm.zeros(
        0,
        spectrogram=_NONE,
        recency=_AGELESS,
        memory=Memory(replay=True, reach=4, probed=True),
        units=32,
        probes=Probes(GENERAL),
    ),
    "published-probes": Namm.zeros(probes=Probes(GENERAL, averaged=True)),
    "both": Namm.zeros(
        memory=Memory(peak=True, replay=True, reach=4, probed=True),
        units=32,
        probes=Probes(GENERAL),
    ),
    "past": Namm.zeros(
        0,
        spectrogram=_NONE,
        recency=_AGELESS,
        memory=Memory(replay=True, reach=4, past=0.5),
        units=32,
    ),
    "published-past": Namm.zeros(memory=Memory(past=0.5)),
    "peak": Namm.zeros(memory=Memory(peak=True)),
    "all": Namm.zeros(memory=Memory(peak=True, replay=True, reach=4), units=32),
}


def family(name: str) -> Namm:
    """Zeros of that form. UsageError if there is none of that name."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise UsageError(f"there is no family {name!r}; there are: {', '.join(FAMILIES)}") from None
