from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from namm_llm import Runner
from tests.vision.folders import save_seeing


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of models by their names, made once; do not write to them."""
    made = dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_seeing(name, tmp_path_factory.mktemp("seeing") / name)
        return made[name]

    return folder


@pytest.fixture
def runner(folder_of: Callable[[str], Path]) -> Runner:
    """A tiny LLaVA with prefix caches of its own."""
    return Runner.load(folder_of("llava"), prefix_caches=4, interval=32, chunk=32)
