"""Clients that leave, seen by a real server on a Unix socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from namm_llm.documents import MemoryStore
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig

MESSAGES = [{"role": "user", "content": "The fox runs."}]


@contextmanager
def listening(app: Any, path: Path) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, uds=str(path), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_leave_nothing_behind(
    runner: Runner, tmp_path: Path, stream: bool
) -> None:
    app = make_app(runner, ServerConfig(name="tiny"), MemoryStore(tmp_path / "memories"))
    body = {"model": "default", "stream": stream, "messages": MESSAGES, "max_tokens": 3000}
    text = json.dumps(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
    service = app.state.service
    with listening(app, tmp_path / "socket"):
        for at in range(12):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "socket"))
                sent = len(head) + (len(text) if at % 3 else at)  # some leave in the middle of it
                client.sendall((head + text).encode()[:sent])
                time.sleep(0.05 if at % 2 else 0)
        deadline = time.monotonic() + 60
        while service.answers.taken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert service.answers.taken == 0
    asked_at = time.monotonic()
    runner.generate("A", max_tokens=1)
    assert time.monotonic() - asked_at < 20, "somebody who has left is still answered"
