"""The clients that people have, against `namm-llm serve` (make test-serve)."""

from __future__ import annotations

import json
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


# images need a model that sees, and summaries of reasoning are asked of models of OpenAI's alone
WITHOUT = {
    "openai-chat": {"chat-image-input": "failed", "chat-reasoning-summary": "skipped"},
    "open-responses": {"image-input": "failed", "reasoning-summary": "skipped"},
}


def run(*command: str | Path, code: int = 0) -> str:
    found = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OPENAI_API_KEY": "none"},
    )
    assert found.returncode == code, found.stdout
    return found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_client_is_served(script: Path, address: str) -> None:
    run(CLIENTS / "python", script, f"{address}/v1")


@pytest.mark.parametrize("api", WITHOUT)
def test_an_api_complies_as_far_as_a_text_model_can(api: str, address: str) -> None:
    target = ("--base-url", f"{address}/v1", "--api-key", "none", "--model", "default")
    out = run(CLIENTS / "llm-comply", *target, "--format", api, "--json", code=1)
    results = json.loads(out)["results"]
    rest = {each["id"]: each["status"] for each in results if each["status"] != "passed"}
    assert rest == WITHOUT[api]
    assert len(results) > 2 * len(rest)
