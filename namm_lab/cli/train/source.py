"""The model that a NAMM is made for, and the documents that it is made on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_lab.cli.train.options import whole_number
from namm_llm.cli.options import BUNDLED, quiet_libraries

if TYPE_CHECKING:
    from namm_lab.train.drawing import SampleSource
    from namm_llm.models.loading import LoadedModel
    from namm_llm.namm import Namm

MODEL_SETTINGS = ("quantization", "device", "dtype")
LENGTHS = {"distil": "3584", "evolve": "2048", "calibrate": "4096"}  # tokens of the documents
QUESTIONS = {
    "distil": 64,
    "evolve": 8,
    "calibrate": 8,
}  # a fact that no lesson asks for counts as not needed


def load(given: dict[str, Any]) -> LoadedModel:
    """The model that the NAMM is for."""
    quiet_libraries()
    from namm_llm.models.loading import load_model

    return load_model(given.get("model", BUNDLED), **model_settings(given))


def model_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Those of `load_model` that were given."""
    return {name: given[name] for name in MODEL_SETTINGS if name in given}


def probe_ids(namm: Namm, source: SampleSource) -> tuple[tuple[int, ...], ...]:
    """The NAMM's probes as tokens of the model."""
    return tuple(tuple(source.format.encode(text)) for text in namm.probes.texts)


def source_of(given: dict[str, Any], loaded: LoadedModel, name: str) -> SampleSource:
    """Where its documents come from."""
    from namm_lab.train.drawing import SampleSource

    lengths = tuple(whole_number(part) for part in given.get("length", LENGTHS[name]).split(","))
    texts = Path(given["texts"]) if "texts" in given else None
    return SampleSource(loaded, lengths, texts, given.get("questions", QUESTIONS[name]))
