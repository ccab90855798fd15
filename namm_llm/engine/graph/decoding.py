"""`GraphDecoding`: how one runner's answers are decoded, where CUDA graphs are not switched off."""

from __future__ import annotations

import logging
from functools import lru_cache

from namm_llm.attention import backend as kernels
from namm_llm.cache import ManagedCache
from namm_llm.engine.decode import Batch, CudaGraphs, PlainBatch
from namm_llm.engine.graph.decoder import StaticDecoder, first_line, why_not_static
from namm_llm.errors import ModelError, UsageError
from namm_llm.models.loading import LoadedModel

_LOG = logging.getLogger("namm_llm")


class GraphDecoding:
    """Decodes with CUDA graphs where they can be recorded, else by plain calls, and says why.

    asked: None for graphs where they can be recorded, True to insist on them; `eager` decodes in
    the same fixed shapes without a recording, on any device, to see what they change. Raises
    ModelError for what is insisted on and cannot be.
    """

    def __init__(self, loaded: LoadedModel, asked: CudaGraphs) -> None:
        if asked not in (None, True, "eager"):
            raise UsageError(f"cuda_graphs must be None, True, False or 'eager', not {asked!r}.")
        self._loaded = loaded
        self._insists = bool(asked)
        self._records = asked != "eager"
        self._reason = _why_not(loaded, record=self._records)
        if self._reason and self._insists:
            raise ModelError(
                f"{loaded.model_id} cannot be decoded with cuda_graphs={asked!r}: {self._reason}; "
                "leave cuda_graphs out."
            )
        if self._reason and loaded.device.type == "cuda":
            self._say()

    def describe(self) -> str:
        """One line: what is done, and why no more."""
        if self._reason:
            return f"plain calls: {self._reason}"
        return "CUDA graphs" if self._records else "fixed shapes"

    def batch(self, caches: list[ManagedCache]) -> Batch:
        """The sequences of these caches, which are used up, side by side; the list is emptied."""
        model = self._loaded.model
        try:
            if self._reason:
                return PlainBatch(model, caches)
            return StaticDecoder(model, *caches, graph=self._records, refused=self._give_up)
        finally:
            caches.clear()  # else what the batch evicts would stay alive in them

    def _give_up(self, error: Exception) -> None:
        """A recording failed: nobody could know before that the model needs the host."""
        self._reason = f"one could not be recorded ({first_line(error)})"
        if self._insists:
            raise ModelError(
                f"{self._loaded.model_id} cannot be decoded with CUDA graphs: {self._reason}; "
                "leave cuda_graphs out."
            ) from error
        self._say()

    def _say(self) -> None:
        _say(f"{self._loaded.model_id} is decoded without CUDA graphs: {self._reason}.")


def _why_not(loaded: LoadedModel, *, record: bool) -> str | None:
    """What keeps the model from being decoded with graphs; None if nothing does."""
    reason = why_not_static(loaded.model)
    if reason or not record:
        return reason
    if loaded.device.type != "cuda":
        return f"they need a model on a GPU, this one is on {loaded.device}"
    if loaded.quantization == "int8" or getattr(loaded.model, "is_loaded_in_8bit", False):
        return "int8 layers ask the host about outliers at every token; nf4 does not"
    if not kernels.usable(loaded.model.get_input_embeddings().weight):  # type: ignore[arg-type]
        return "Triton is not installed (pip install 'namm-llm[gpu]')"
    return None


@lru_cache(maxsize=64)
def _say(line: str) -> None:
    """On stderr, or wherever the program's log goes; each line once in a process."""
    _LOG.warning(line)
