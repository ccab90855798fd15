"""NAMM: the neural attention memory model that scores cached tokens. It knows nothing about caches
or language models.

    attention rows --Spectrogram.update--> state --Namm.features--> features --Namm.scores--> scores

A `Namm` is an immutable value; `Namm.load` and `Namm.save` keep it in a small safetensors file.
"""

from namm_llm.namm.network import Namm
from namm_llm.namm.recency import Recency
from namm_llm.namm.settings import NammSettings
from namm_llm.namm.spectrogram import Spectrogram

__all__ = ["Namm", "NammSettings", "Recency", "Spectrogram"]
