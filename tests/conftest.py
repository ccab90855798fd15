"""What all tests share: no network, two threads, and a tiny model folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # one core for each worker; before torch is imported

from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels without a GPU; before triton is imported

import pytest

# a shell that starts the tests in the background has interrupts ignored, and so would every process
# that a test interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a Llama-3-like tokenizer; do not write to it."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's commands keep memories and chats: never in the user's own folder."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAMM_LLM_HOME", str(folder))
    return folder


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder for compiled kernels, and no library loaded yet."""
    from namm_llm import native
    from namm_llm.models.packed import native as packed

    monkeypatch.setenv("NAMM_LLM_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.delenv("CC", raising=False)
    for cached in (native.load, packed.load):
        cached.cache_clear()
    yield tmp_path / "kernels"
    for cached in (native.load, packed.load):
        cached.cache_clear()
