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
    """Runners on the same weights with other settings."""

    def make(**settings: object) -> Runner:
        return Runner.load(tiny_folder, **{"prefix_caches": 0, **settings})

    return make
