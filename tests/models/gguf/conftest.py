"""Real GGUF files for the tests, as pulled or in a folder that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real.conftest import REAL_VARIABLE, file_of


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """A folder with llama.cpp's vocabularies; skips if none is named."""
    named = os.environ.get(REAL_VARIABLE)
    if not named:
        pytest.skip(f"{REAL_VARIABLE} names no folder with real models")
    return Path(named)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return file_of("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M, Q4_K_M."""
    return file_of("gemma3-270m")
