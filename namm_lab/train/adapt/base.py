"""The model that an adapter is trained on: float weights, those of a GGUF file expanded."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from namm_llm import UsageError
from namm_llm.models.gguf import load_gguf
from namm_llm.models.loading import LoadedModel, load_model
from namm_llm.models.locate import locate

REFUSED = {
    "quantization": "trains float weights; leave quantization out, and give it with --adapter",
    "adapter": "makes a new adapter of the plain model; leave adapter out",
}


def load_base(model: str | os.PathLike[str], **settings: Any) -> LoadedModel:
    """The model in float32, or in the dtype that is asked for. settings: of `load_model`.

    Raises ModelError if it cannot be loaded, UsageError for settings that training does not have.
    """
    for name, reason in REFUSED.items():
        if settings.get(name) is not None:
            raise UsageError(f"adapt {reason}.")
    settings = {"dtype": "float32", **settings}
    path = locate(model)
    if path is None or (path.is_dir() and (path / "config.json").is_file()):
        return load_model(model, **settings)
    if settings.get("rope_scaling") is not None:
        raise UsageError("adapt trains a GGUF file at its own positions; leave rope_scaling out.")
    unknown = {"dtype": "float32", "device": "cpu"}
    for name, taken in unknown.items():
        if settings.get(name, taken) not in (taken, "auto"):
            raise UsageError(
                f"a GGUF file is expanded to {taken} for training; leave {name} out, or convert it "
                "with `namm-llm models convert` first."
            )
    started = time.perf_counter()
    expanded = load_gguf(path, dtype=torch.float32)
    return LoadedModel(
        model=expanded.model,
        tokenizer=expanded.tokenizer,
        model_id=str(model),
        folder=path,
        quantization=None,
        positions=expanded.positions,
        end_ids=frozenset(expanded.end_ids),
        load_seconds=time.perf_counter() - started,
        packed_fingerprint=expanded.fingerprint,
    )
