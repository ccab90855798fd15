"""NAMM: the neural attention memory model that scores cached tokens. It knows nothing about caches
or language models.

    attention rows  --Spectrogram.update-->  state  --Namm.features-->  features  --Namm.scores-->  scores

A `Namm` is an immutable value; `Namm.load` and `Namm.save` keep it in a small safetensors file.
"""

from namm_llm.namm.memory import Memory
from namm_llm.namm.network import Namm
from namm_llm.namm.probes import Probes
from namm_llm.namm.recency import Recency
from namm_llm.namm.spectrogram import Spectrogram

__all__ = ["Memory", "Namm", "Probes", "Recency", "Spectrogram", "import_reference", "load", "save"]

load = Namm.load
save = Namm.save
import_reference = Namm.import_reference
