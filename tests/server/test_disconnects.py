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

from namm_llm.documents import MemoryStore
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig
from namm_llm.server.listen import server_of

HEADERS = "host: localhost\r\ncontent-type: application/json\r\n"
MESSAGES = [{"role": "user", "content": "The fox runs."}]


@contextmanager
def listening(app: Any, path: Path) -> Iterator[None]:
    server = server_of(app, app.state.service.config, uds=str(path), log_level="error")
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
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HEADERS}content-length: {len(text)}\r\n\r\n"
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


def test_a_client_that_takes_or_sends_nothing_is_left(runner: Runner, tmp_path: Path) -> None:
    config = ServerConfig(name="tiny", max_waiting=64, body_seconds=0.3)
    app = make_app(runner, config, MemoryStore(tmp_path / "memories"))
    # with all log-probabilities an answer is more than the sockets hold
    chat = {"model": "default", "messages": MESSAGES, "logprobs": True, "top_logprobs": 20}
    text = json.dumps({**chat, "stream": True, "max_tokens": 4000, "n": 4, "stop_loops": False})
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{HEADERS}content-length: {len(text)}\r\n\r\n"
    form = head.replace("application/json", "multipart/form-data; boundary=x")
    form = form.replace("chat/completions", "memories")
    with listening(app, tmp_path / "socket"):
        for sent in (head + text, head[:20], "", form, form + "--x"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(tmp_path / "socket"))
                client.sendall(sent.encode())
                if sent == head + text:
                    while not app.state.service.answers.taken:
                        time.sleep(0.01)
                    while app.state.service.answers.taken:
                        time.sleep(0.01)
                else:
                    found = client.recv(1000)
                    assert b" 408 " in found if sent[:26] == form[:26] else not found
