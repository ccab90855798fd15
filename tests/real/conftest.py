"""Models as `namm-llm models pull` fetches them, and their expanded twins: SmolLM2-135M-Instruct,
and Gemma 3 270M, which has sliding windows. Qwen2.5-Coder-0.5B-Instruct does what SmolLM2 cannot.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from namm_llm import Runner
from namm_llm.models.catalogue import catalogue

REAL_VARIABLE = "NAMM_LLM_REAL_MODELS"
_PULLED = {  # of the user: a test's own data folder is empty
    name: catalogue()[name].path for name in ("smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m")
}


def file_of(name: str) -> Path:
    """The file: of the folder NAMM_LLM_REAL_MODELS, or where it was pulled; skips without it."""
    folder, pulled = os.environ.get(REAL_VARIABLE), _PULLED[name]
    path = Path(folder) / pulled.name if folder else pulled
    if not path.is_file():
        pytest.skip(f"{path.name} is not here: namm-llm models pull {name}")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """See `file_of`."""
    return file_of("smollm2-135m")


@pytest.fixture(scope="session")
def gemma() -> Path:
    """See `file_of`."""
    return file_of("gemma3-270m")


@pytest.fixture(scope="session")
def qwen() -> Path:
    """See `file_of`."""
    return file_of("qwen2.5-coder-0.5b")


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
