from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from namm_llm.runner import Runner


@pytest.fixture(scope="session")
def runner(tiny_folder: Path) -> Runner:
    """The full cache, nothing kept between two prompts."""
    return Runner.load(tiny_folder, prefix_caches=0)


@pytest.fixture(scope="session")
def make_runner(tiny_folder: Path) -> Callable[..., Runner]:
    """RunnerPool on the same weights with other settings."""

    def make(**settings: object) -> Runner:
        return Runner.load(tiny_folder, **{"prefix_caches": 0, **settings})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def long_text() -> str:
    """About 300 tokens, with no two sentences alike."""
    return " ".join(f"The vault {n} holds {n * 7919 % 1000} coins and a fox." for n in range(20))
