from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

MODEL = os.environ.get("NAMM_LLM_SERVED", "namm-tiny")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `namm-llm serve` listens, as a user starts it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "namm_llm", "serve", "--model", MODEL, "--port", str(port)]
    environment = {**os.environ, "NAMM_LLM_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=10):
            break
        time.sleep(0.2)
    assert process.poll() is None, (folder / "log").read_text()
    yield address
    process.terminate()
    assert process.wait(60) in (0, -15), (folder / "log").read_text()
    assert "Traceback" not in (folder / "log").read_text()
