"""A runner whose model has so few positions that a page does not fit, and such a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from namm_llm import Runner
from tests.tiny import save_tiny

POSITIONS = 320
ANSWER = {"max_tokens": 12}
IN_PARTS = {**ANSWER, "part_tokens": 70}  # of the page, more than two batches


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with few positions; do not write to it."""
    return save_tiny(tmp_path_factory.mktemp("small") / "small-llama", positions=POSITIONS)


@pytest.fixture(scope="session")
def runner(small_folder: Path) -> Runner:
    return Runner.load(small_folder, policy="streaming_llm", budget=48, interval=64)


@pytest.fixture(scope="session")
def short() -> str:
    return "The lamp is green. The door is red.\n"


@pytest.fixture(scope="session")
def page() -> str:
    """Some 750 tokens."""
    return "\n\n".join(
        f"Room {number}. The lamp is green, and the door was painted in {1900 + number}."
        for number in range(20)
    )
