"""Real GGUF files for the tests, where a folder that holds them is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_VARIABLE = "NAMM_LLM_REAL_MODELS"


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder with real models; skips if none is named."""
    named = os.environ.get(REAL_VARIABLE)
    if not named:
        pytest.skip(f"{REAL_VARIABLE} names no folder with real models")
    return Path(named)


@pytest.fixture(scope="session")
def smollm2(real_folder: Path) -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return _existing(real_folder / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def gemma3(real_folder: Path) -> Path:
    """Gemma 3 270M, Q4_K_M."""
    return _existing(real_folder / "gemma-3-270m-Q4_K_M.gguf")


def _existing(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"{path.name} is not in the folder {REAL_VARIABLE}")
    return path
