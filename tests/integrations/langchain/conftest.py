from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_namm import ChatNamm, NammLLM

from namm_llm import Runner
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
def forwards(folder: Path) -> Iterator[list[int]]:
    """How many sequences went through the model, in each pass."""
    passes: list[int] = []

    def count(module: Any, args: Any, kwargs: Any) -> None:
        passes.append(len(kwargs["input_ids"]))

    runner = Runner.load(folder)  # held, so that the weights stay those of the test
    hook = runner.loaded.model.register_forward_pre_hook(count, with_kwargs=True)
    yield passes
    hook.remove()
