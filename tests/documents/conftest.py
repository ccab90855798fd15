"""The tiny model stays loaded while the tests of documents run."""

from __future__ import annotations

from pathlib import Path

import pytest

from namm_llm.models.loading import LoadedModel, load_model


@pytest.fixture(scope="session", autouse=True)
def loaded(tiny_folder: Path) -> LoadedModel:
    return load_model(tiny_folder)
