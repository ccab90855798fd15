from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from namm_llm.documents import MemoryStore
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig


@pytest.fixture(scope="session")
def runner(tiny_folder: Path) -> Runner:
    """What the servers of these tests answer with."""
    return Runner.load(tiny_folder, prefix_caches=4)


@pytest.fixture
def make_client(runner: Runner, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Clients of servers with the settings of `ServerConfig`."""
    clients = list[TestClient]()

    def make(**settings: Any) -> TestClient:
        config = ServerConfig(**{"name": "tiny", **settings})
        app = make_app(runner, config, MemoryStore(tmp_path / "memories"))
        clients.append(TestClient(app, "http://localhost").__enter__())
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """A client of a server without keys."""
    return make_client()
