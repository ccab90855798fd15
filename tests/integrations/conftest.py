from __future__ import annotations

from pathlib import Path

import pytest

from namm_llm import Document, Runner
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with room for long prompts."""
    return save_tiny(tmp_path_factory.mktemp("integrations") / "tiny", positions=16384)


@pytest.fixture(scope="session")
def two_documents(long_folder: Path) -> list[Document]:
    """Read with the full cache."""
    runner = Runner.load(long_folder)
    return [runner.read(f"The vault {n} holds {n * 7919} coins. " * 12) for n in (1, 2)]


@pytest.fixture
def two_files(two_documents: list[Document], tmp_path: Path) -> list[Path]:
    """The same, saved."""
    files = [tmp_path / "one.namm", tmp_path / "two.namm"]
    for document, file in zip(two_documents, files, strict=True):
        document.save(file)
    return files
