"""SmolLM2-135M-Instruct as `namm-llm models pull` fetches it, and its expanded twin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from namm_llm import Runner
from namm_llm.models.catalogue import catalogue

REAL_VARIABLE = "NAMM_LLM_REAL_MODELS"
_MODEL = catalogue()["smollm2-135m"]
_PULLED = _MODEL.path  # of the user: a test's own data folder is empty


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The file: of the folder NAMM_LLM_REAL_MODELS, or where it was pulled; skips without it."""
    folder = os.environ.get(REAL_VARIABLE)
    path = Path(folder) / _MODEL.file if folder else _PULLED
    if not path.is_file():
        pytest.skip(f"{_MODEL.file} is not here: namm-llm models pull {_MODEL.name}")
    return path


@pytest.fixture(scope="session")
def runner(smollm2: Path) -> Runner:
    """Its weights packed, with the full cache."""
    return Runner.load(smollm2, device="cpu", policy="full")


@pytest.fixture(scope="session")
def twin_folder(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in float32, as a folder for transformers."""
    from namm_llm.models.gguf import convert_gguf

    return convert_gguf(smollm2, tmp_path_factory.mktemp("twin") / "smollm2")


@pytest.fixture(scope="session")
def twin(twin_folder: Path) -> Any:
    """transformers' own model of that folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(twin_folder)
