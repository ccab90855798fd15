"""Requests that are wrong in every way: each is refused or answered, and nothing stays behind."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from namm_llm.runner import Runner
from tests.server.test_chat import MESSAGES, TOOL

JSON = {"content-type": "application/json"}
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "default",
        "messages": [*MESSAGES, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}],
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "stream_options": {"include_usage": True},
        "logit_bias": {"5": 1.0},
        "stop": ["x"],
        "seed": 1,
        "temperature": 0.5,
        "n": 1,
        "max_tokens": 1,
    },
    "/v1/completions": {"model": "default", "prompt": ["a", "b"], "echo": True, "max_tokens": 1},
    "/v1/responses": {
        "model": "default",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "ring", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "rang"},
        ],
        "tools": [{"type": "function", **TOOL["function"]}],
        "text": {"format": {"type": "json_object"}},
        "previous_response_id": None,
        "max_output_tokens": 1,
    },
    "/v1/embeddings": {"model": "default", "input": [[5, 6], [7]], "encoding_format": "base64"},
    "/v1/memories": {"name": "../x", "text": "The fox."},
    "/tokenize": {"messages": MESSAGES},
    "/detokenize": {"tokens": [5, 6]},
}
DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(None, True, -1, 0, 5, 10**30, -(10**30), 1e308, 0.5, "", "\0", "\uffff", "x" * 3000, "auto"),
    *([], {}, [[]], [None], [5], {"a": {}}, {"type": "object"}, "../../etc/passwd", DEEP),
    *({"type": "function"}, {"$ref": "#"}, {"properties": {"a": {"$ref": "#/nowhere"}}}),
]
LIMITS = ("max_tokens", "max_output_tokens", "n")  # what would make an answer long is left alone


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside with one of its keys."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if key not in LIMITS:
            yield value, key
            if isinstance(each, (dict, list)):
                yield from places(each)


def hostile(chance: random.Random) -> tuple[str, bytes]:
    """A path, and the body of a request that is wrong somewhere."""
    path = chance.choice(list(VALID))
    body = copy.deepcopy(VALID[path])
    for _ in range(chance.choice((1, 1, 2, 5))):
        where, key = chance.choice(list(places(body)) or [(body, "x")])
        kind = chance.random()
        if kind < 0.7:
            where[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind < 0.85 and len(where) > 1 and where is not body:
            del where[key]
        elif isinstance(where, dict):
            where["unknown"] = copy.deepcopy(chance.choice(VALUES))
    raw = json.dumps(body).encode()
    kind = chance.random()
    if kind < 0.05:
        raw = raw[: chance.randrange(len(raw))]
    elif kind < 0.1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :]
    elif kind < 0.12:
        raw = chance.choice((b"[", b'{"a":', b'{"messages":[')) * chance.choice((100, 50_000))
    return path, raw


def check_one(client: TestClient, chance: random.Random) -> int:
    """The status of one such request, which is told in one line what is wrong with it."""
    path, raw = hostile(chance)
    response = client.post(path, content=raw, headers=JSON)
    assert response.status_code in (200, 202, 400, 404, 503), (path, raw[:2000], response.text)
    if response.status_code >= 400:
        error = response.json()["error"]
        assert "\n" not in error["message"], (path, raw[:2000], error)
        assert len(error["message"]) < 5000, (path, raw[:2000], error)
    return response.status_code


async def leave(app: Any, chance: random.Random) -> None:
    """A client that closes its connection in the middle of its request or of its answer."""
    body = {"model": "default", "messages": MESSAGES, "max_tokens": 50}
    raw = json.dumps({**body, "stream": chance.random() < 0.5}).encode()
    cut, turns = chance.random() < 0.2, chance.choice((0, 1, 5, 50, 500))
    parts = [{"type": "http.request", "body": raw[: len(raw) // 2] if cut else raw}]
    parts[0]["more_body"] = cut

    async def receive() -> Any:
        if parts:
            return parts.pop()
        for _ in range(turns):
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    path = "/v1/chat/completions"
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80)}
    await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive, send)


def attack(client: TestClient, runner: Runner, *, requests: int, disconnects: int) -> None:
    chance = random.Random(requests)
    found = {check_one(client, chance) for _ in range(requests)}
    assert {200, 400} <= found
    assert client.portal is not None
    for _ in range(disconnects):
        client.portal.call(leave, client.app, chance)
    service: Any = client.app.state.service  # type: ignore[attr-defined]
    while service.readings.taken:
        client.portal.call(asyncio.sleep, 0.01)
    assert runner.generate("A", max_tokens=1).usage.output_tokens == 1
    assert service.answers.taken == 0
    queue = runner.session._queue
    assert not queue._waiting
    assert not queue._served


def test_hostile_requests_leave_nothing_behind(client: TestClient, runner: Runner) -> None:
    attack(client, runner, requests=300, disconnects=20)


def resident_nbytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured on Linux")
def test_ten_thousand_hostile_requests(
    make_client: Callable[..., TestClient], runner: Runner
) -> None:
    client = make_client(max_responses=16)
    attack(client, runner, requests=3000, disconnects=100)
    before = resident_nbytes()
    attack(client, runner, requests=10_000, disconnects=200)
    assert resident_nbytes() - before < 64 * 2**20
