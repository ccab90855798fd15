from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_namm import ChatNamm, NammLLM

from tests.tiny import save_tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with room for long prompts."""
    return save_tiny(tmp_path_factory.mktemp("langchain") / "tiny", positions=16384)


@pytest.fixture
def chat(folder: Path) -> ChatNamm:
    return ChatNamm(model=str(folder), max_tokens=12)


@pytest.fixture
def llm(folder: Path) -> NammLLM:
    return NammLLM(model=str(folder), max_tokens=12)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences went through the model, in each pass."""
    from namm_llm.engine import decode as generation

    passes: list[int] = []
    forward = generation._forward

    def counted(model: Any, cache: Any, ids: list[list[int]], positions: list[int]) -> Any:
        passes.append(len(ids))
        return forward(model, cache, ids, positions)

    monkeypatch.setattr(generation, "_forward", counted)
    return passes
