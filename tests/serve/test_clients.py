"""The clients that people have, against `namm-llm serve` (make test-serve)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(os.environ.get("NAMM_LLM_CLIENTS", ".venv-clients")) / "bin"
SCRIPTS = sorted(Path(__file__).with_name("clients").glob("*.py"))
pytestmark = [
    pytest.mark.serve,
    pytest.mark.enable_socket,
    pytest.mark.skipif(not CLIENTS.exists(), reason="make test-serve installs the clients"),
]


def run(*command: str | Path) -> str:
    found = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OPENAI_API_KEY": "none"},
    )
    assert found.returncode == 0, found.stdout
    return found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_client_is_served(script: Path, address: str) -> None:
    run(CLIENTS / "python", script, f"{address}/v1")
