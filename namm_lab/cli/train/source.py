"""The model that a NAMM is made for, and the documents that it is made on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from namm_lab.cli.train.options import MODEL_SETTINGS
from namm_lab.cli.values import numbers
from namm_llm.cli.options import quiet_libraries
from namm_llm.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from namm_lab.train.sample_source import SampleSource
    from namm_llm.models.loading import LoadedModel

LENGTHS = {"distil": "3584", "evolve": "2048", "calibrate": "4096"}
"""Tokens of the documents."""
QUESTIONS = {"distil": 64, "evolve": 8, "calibrate": 8}
"""About a document. Distilling asks many: a fact that nobody asks for counts as not needed."""


def load(given: dict[str, Any]) -> LoadedModel:
    """The model that the NAMM is for."""
    quiet_libraries()
    from namm_llm.models.loading import load_model

    return load_model(given.get("model", DEFAULT_MODEL), **model_settings(given))


def model_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Those of `load_model` that were given, but for the model's name."""
    return {name: given[name] for name in MODEL_SETTINGS[1:] if name in given}


def source_of(given: dict[str, Any], loaded: LoadedModel, name: str) -> SampleSource:
    """Where its documents come from."""
    from namm_lab.train.sample_source import SampleSource

    lengths = numbers("length", given.get("length", LENGTHS[name]))
    texts = Path(given["texts"]) if "texts" in given else None
    return SampleSource(loaded, lengths, texts, given.get("questions", QUESTIONS[name]))
