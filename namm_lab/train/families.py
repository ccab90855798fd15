"""The forms of NAMM that can be made: a name, and zeros of that form."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from namm_llm import ManagedCache, Namm, Spectrogram, UsageError
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
    # the same, the lengths of the token's key and value, and a factor and a summand for each head
    # of the one model that it is made for
    "heads": Namm.zeros(0, replace(_REPLAY, neighbour_radius=4, norms=True, heads=1)),
    "replay": Namm.zeros(0, _REPLAY),
    # attention in short frames, what newer tokens repeat, and age, each beside the head's other
    # tokens: nothing of it needs RoPE, or knows how long a text or an episode is
    "universal": Namm.zeros(
        0,
        NammSettings(
            Spectrogram(n_fft=8, hop=4), Recency(0), novelty=True, relative=True, mlp_hidden=32
        ),
    ),
    "published": Namm.zeros(),
    "published-linear": Namm.zeros(0),
}


def family(name: str) -> Namm:
    """Zeros of that form. UsageError if there is none of that name."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise UsageError(f"there is no family {name!r}; there are: {', '.join(FAMILIES)}") from None


def for_model(form: Namm, model: PreTrainedModel) -> Namm:
    """Zeros of that form, with as many heads as the model has where heads have their own."""
    if not form.settings.heads:
        return form
    text = model.config.get_text_config(decoder=True)
    heads = len(ManagedCache.for_model(model).managed) * text.num_key_value_heads
    return Namm.zeros(form.attention_dim, replace(form.settings, heads=heads))
