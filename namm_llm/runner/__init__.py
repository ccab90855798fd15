"""Text in, text out: a model, its prompts, and the thread that answers them."""

from namm_llm.runner.loading import LoadedModel, load_model
from namm_llm.runner.results import Generation, Piece, Timings, Usage
from namm_llm.runner.runner import Runner
from namm_llm.runner.sampling import SamplingParams
from namm_llm.runner.stream import Stream

__all__ = [
    "Generation",
    "LoadedModel",
    "Piece",
    "Runner",
    "SamplingParams",
    "Stream",
    "Timings",
    "Usage",
    "load_model",
]
