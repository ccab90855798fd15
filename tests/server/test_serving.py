"""Keys, limits, memories, and what the server says of itself."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from namm_llm.documents import MemoryStore
from namm_llm.errors import UsageError
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig
from tests.server.test_chat import CHAT, MESSAGES, chat
from tests.tiny import save_tiny

MakeClient = Callable[..., TestClient]
TEXT = "The head of the department signs travel requests. " * 12


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def remembered(client: TestClient, name: str, text: str = TEXT, **options: Any) -> Any:
    """The state of a memory once it is read."""
    response = client.post("/v1/memories", json={"name": name, "text": text}, **options)
    assert response.status_code == 202, response.text
    while (state := client.get(f"/v1/memories/{name}", **options).json())["status"] == "reading":
        time.sleep(0.01)
    return state


# -- keys ------------------------------------------------------------------------------------------


def test_nobody_asks_without_the_key(make_client: MakeClient) -> None:
    client = make_client(api_keys=("one", "two"))
    for headers in ({}, bearer("three"), bearer(""), {"authorization": "Basic one"}):
        response = client.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    assert client.post("/v1/chat/completions", json=CHAT, headers=bearer("two")).status_code == 200


def test_owners_share_no_memories(make_client: MakeClient) -> None:
    client = make_client(api_keys=("one", "two"))
    one, two = {"headers": bearer("one")}, {"headers": bearer("two")}
    assert remembered(client, "handbook", **one)["status"] == "ready"
    assert client.get("/v1/memories", **two).json()["data"] == []
    asked = {**CHAT, "memory": "handbook"}
    assert client.post("/v1/chat/completions", json=asked, **one).status_code == 200
    assert client.post("/v1/chat/completions", json=asked, **two).status_code == 400


def test_owners_share_no_prefixes(make_client: MakeClient) -> None:
    client = make_client(api_keys=("one", "two"))

    def cached(key: str) -> int:
        long = {**CHAT, "messages": [{"role": "user", "content": "Only one says this. " * 9}]}
        answer = client.post("/v1/chat/completions", json=long, headers=bearer(key)).json()
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    first = cached("one")
    assert cached("two") == first, "the second cannot measure what the first has asked"
    assert cached("two") == cached("one") > first


def test_owners_share_no_responses(make_client: MakeClient) -> None:
    client = make_client(api_keys=("one", "two"))
    body = {"model": "default", "input": "Hello", "max_output_tokens": 2}
    id = client.post("/v1/responses", json=body, headers=bearer("one")).json()["id"]
    on = {**body, "previous_response_id": id}
    assert client.post("/v1/responses", json=on, headers=bearer("one")).status_code == 200
    assert client.post("/v1/responses", json=on, headers=bearer("two")).status_code == 404


# -- limits ----------------------------------------------------------------------------------------


def test_too_many_answers_at_once_are_refused(make_client: MakeClient) -> None:
    client = make_client(max_waiting=2)
    answers = client.app.state.service.answers  # type: ignore[attr-defined]
    with answers.take():
        response = client.post("/v1/chat/completions", json={**CHAT, "n": 2})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "overloaded"
    for _ in range(4):  # what ended makes room
        chat(client, n=2)


def test_what_will_never_have_room_is_refused_for_good(make_client: MakeClient) -> None:
    body = {"model": "default", "prompt": ["a"] * 100, "max_tokens": 1}
    response = make_client().post("/v1/completions", json=body)
    assert response.status_code == 400
    assert "100 answers, and 64" in response.json()["error"]["message"]


def test_readings_hold_nobody_up(make_client: MakeClient) -> None:
    client, release = make_client(max_readings=40), threading.Event()
    service = client.app.state.service  # type: ignore[attr-defined]
    read = service.memories.read
    service.memories.read = lambda *each: release.wait(60) and read(*each)
    states = [client.post("/v1/memories", json={"name": f"m{n}", "text": "x"}) for n in range(41)]
    assert [each.status_code for each in states] == [*[202] * 40, 503]
    assert states[-1].headers["retry-after"] == "1"
    assert client.get("/v1/memories/m39").json()["status"] == "reading"
    assert client.post("/tokenize", json={"prompt": "The fox"}).status_code == 200
    release.set()
    while service.readings.taken:
        time.sleep(0.01)
    assert client.get("/v1/memories/m39").json()["status"] == "ready"


def test_a_server_that_ends_ends_its_readings(make_client: MakeClient) -> None:
    service = make_client().app.state.service  # type: ignore[attr-defined]
    state = service.memories.begin("handbook", "")
    service.close()
    service.memories.read(state, TEXT, "")
    assert "the server ended" in service.memories.state("handbook", "").error


def test_a_request_that_is_too_large_is_refused(make_client: MakeClient) -> None:
    client = make_client(max_body=1000)
    json = {"content-type": "application/json"}
    response = client.post("/v1/chat/completions", content=b" " * 1001, headers=json)
    assert response.status_code == 413
    held = make_client(max_bodies=1000)
    for _ in range(3):  # what has ended is not counted
        assert held.post("/v1/chat/completions", json=CHAT).status_code == 200
    response = held.post("/v1/chat/completions", content=b" " * 1001, headers=json)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    files = {"file": ("a.txt", b"x" * 2000)}
    assert client.post("/v1/memories", files=files).status_code == 413


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="max_waiting must be 1 or more, not 0"):
        ServerConfig(name="x", max_waiting=0)
    with pytest.raises(UsageError, match="an API key must not be empty"):
        ServerConfig(name="x", api_keys=("",))


def test_pages_of_other_origins_may_ask_if_they_are_named(make_client: MakeClient) -> None:
    wanted = {"origin": "http://a.example", "access-control-request-method": "POST"}
    path = "/v1/chat/completions"
    allowed = make_client(cors=("http://a.example",), api_keys=("k",)).options(path, headers=wanted)
    assert allowed.headers["access-control-allow-origin"] == "http://a.example"
    other = make_client().options(path, headers=wanted)
    assert "access-control-allow-origin" not in other.headers


def test_pages_of_other_sites_may_not_ask(make_client: MakeClient) -> None:
    client = make_client(hosts=("box.example",))
    path = "/v1/chat/completions"
    for host, status in (
        *(("evil.example", 403), ("evil.example:8000", 403), ("localhost.evil.example", 403)),
        *(("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("box.example", 200)),
    ):
        assert client.post(path, json=CHAT, headers={"host": host}).status_code == status, host
    with_key = make_client(api_keys=("k",))
    headers = {"host": "any.example", **bearer("k")}
    assert with_key.post(path, json=CHAT, headers=headers).status_code == 200
    files = {"file": ("a.txt", TEXT.encode())}
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost", 202)):
        found = client.post("/v1/memories", files=files, headers={"origin": origin})
        assert found.status_code == status
    plain = client.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415


def test_a_fault_of_ours_is_an_error_object_and_a_line_in_the_log(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("private")

    service = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service.memories, "states", broken)
    response = client.get("/v1/memories")
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the server failed; its log says why."
    assert response.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError: private" in caplog.text


def test_no_error_shows_a_folder(client: TestClient, runner: Runner) -> None:
    body = {"model": "default", "prompt": [10**6], "max_tokens": 1}
    message = client.post("/v1/completions", json=body).json()["error"]["message"]
    assert Path(runner.loaded.model_id).name in message
    assert "/" not in message


# -- memories --------------------------------------------------------------------------------------


def test_a_memory_is_read_once_and_asked(client: TestClient, runner: Runner) -> None:
    state = remembered(client, "handbook")
    assert state["status"] == "ready"
    assert state["read_tokens"] == state["total_tokens"] > 100
    found = chat(client, memory="handbook")
    wanted = runner.read(TEXT).ask(MESSAGES, max_tokens=8)
    assert found["choices"][0]["message"]["content"] == wanted.text
    assert found["usage"]["prompt_tokens_details"]["cached_tokens"] >= state["read_tokens"]


def test_several_memories_are_asked_together(client: TestClient, runner: Runner) -> None:
    texts = {"one": TEXT, "two": "The dog is brown. " * 20}
    for name, text in texts.items():
        remembered(client, name, text)
    found = chat(client, memory=list(texts))
    wanted = runner.combine([runner.read(text) for text in texts.values()])
    answer = wanted.ask(MESSAGES, max_tokens=8)
    assert found["choices"][0]["message"]["content"] == answer.text
    assert found["usage"]["prompt_tokens"] == answer.usage.input_tokens


def test_a_memory_is_there_after_a_restart(client: TestClient, make_client: MakeClient) -> None:
    remembered(client, "handbook")
    before = chat(client, memory=["handbook"])
    again = make_client()
    assert [each["name"] for each in again.get("/v1/memories").json()["data"]] == ["handbook"]
    after = chat(again, memory="handbook")
    assert after["choices"][0]["message"] == before["choices"][0]["message"]


def test_a_text_under_two_names_is_one_memory_with_both(client: TestClient) -> None:
    assert remembered(client, "one")["status"] == "ready"
    assert remembered(client, "two")["status"] == "ready"
    assert {each["name"] for each in client.get("/v1/memories").json()["data"]} == {"one", "two"}
    assert client.delete("/v1/memories/one").status_code == 200
    assert client.get("/v1/memories/one").status_code == 404
    assert client.get("/v1/memories/two").json()["status"] == "ready"


def test_a_memory_is_not_forgotten_while_it_is_read(client: TestClient) -> None:
    memories = client.app.state.service.memories  # type: ignore[attr-defined]
    state = memories.begin("handbook", "")
    assert client.delete("/v1/memories/handbook").status_code == 400
    memories.read(state, TEXT, "")
    assert client.delete("/v1/memories/handbook").status_code == 200


def test_a_memory_is_forgotten(client: TestClient) -> None:
    remembered(client, "handbook")
    assert client.delete("/v1/memories/handbook").json()["deleted"] is True
    assert client.delete("/v1/memories/handbook").status_code == 404
    assert client.get("/v1/memories/handbook").status_code == 404
    assert client.get("/v1/memories").json()["data"] == []


def test_a_file_becomes_a_memory_of_its_name(client: TestClient) -> None:
    response = client.post("/v1/memories", files={"file": ("../../etc/rules.txt", TEXT.encode())})
    assert response.status_code == 202
    assert response.json()["name"] == "rules.txt"
    assert client.post("/v1/memories", files={"file": ("b.txt", b"\xff\xfe")}).status_code == 400
    assert client.post("/v1/memories", files={"other": ("b.txt", b"x")}).status_code == 400
    form = {"content-type": "multipart/form-data; boundary=x", "content-length": "abc"}
    assert client.post("/v1/memories", content=b"x", headers=form).status_code == 400


def test_a_text_that_cannot_be_read_says_why(client: TestClient) -> None:
    state = remembered(client, "long", "fox " * 9000)
    assert state["status"] == "failed"
    assert "4096 positions" in state["error"]
    assert client.delete("/v1/memories/long").status_code == 200


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "", "x.namm", "C:\\x"])
def test_no_name_is_a_path(client: TestClient, name: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert client.post("/v1/memories", json={"name": name, "text": "x"}).status_code == 400
    body = {**CHAT, "memory": name or "../memories"}
    assert client.post("/v1/chat/completions", json=body).status_code == 400
    assert sorted(tmp_path.rglob("*")) == before


def test_the_memories_held_open_stay_within_their_limit(make_client: MakeClient) -> None:
    client = make_client(max_open_nbytes=1)
    service = client.app.state.service  # type: ignore[attr-defined]
    for name in ("one", "two", "three"):
        remembered(client, name, f"{name}. {TEXT}")
        chat(client, memory=name)
    assert len(service.memories._open) == 1
    assert all(chat(client, memory=name) for name in ("one", "two"))


# -- what it says of itself ------------------------------------------------------------------------


def test_tokens_and_their_text(client: TestClient, runner: Runner) -> None:
    tokens = client.post("/tokenize", json={"prompt": "The fox"}).json()["tokens"]
    assert tokens == runner.encode("The fox")
    assert client.post("/detokenize", json={"tokens": tokens}).json()["prompt"] == "The fox"
    messages = client.post("/tokenize", json={"messages": MESSAGES}).json()
    assert messages["count"] == runner.count_tokens(MESSAGES)
    assert client.post("/detokenize", json={"tokens": [-1]}).status_code == 400
    assert client.post("/tokenize", json={}).status_code == 400


def test_an_embedding_is_the_mean_of_the_last_states(client: TestClient, runner: Runner) -> None:
    body = {"model": "default", "input": ["The fox", "The dog"]}
    found = client.post("/v1/embeddings", json=body).json()
    ids = torch.tensor([[0, *runner.encode("The dog")]])
    with torch.no_grad():
        states: Any = runner.loaded.model.base_model(input_ids=ids).last_hidden_state
    wanted = torch.nn.functional.normalize(states[0].mean(0), dim=0).numpy()
    assert np.allclose(found["data"][1]["embedding"], wanted, atol=1e-5)
    packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(packed["data"][1]["embedding"]), "<f4")
    assert np.allclose(decoded, wanted, atol=1e-5)
    assert found["usage"]["prompt_tokens"] == 2 * ids.shape[1]


def test_models_health_and_numbers(client: TestClient) -> None:
    names = [each["id"] for each in client.get("/v1/models").json()["data"]]
    assert names == ["tiny", "default"]
    assert client.get("/v1/models/tiny").json()["context_window"] == 4096
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}
    chat(client)
    text = client.get("/metrics").text
    assert 'namm_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert "namm_completion_tokens_total 8.0" in text
    assert client.get("/nowhere").json()["error"]["message"] == "there is no GET /nowhere."
    assert client.get("/v1/responses").status_code == 405
    assert client.get("/health").headers["x-request-id"].startswith("req_")


def test_a_dead_worker_is_not_healthy(tmp_path: Path) -> None:
    own = Runner.load(save_tiny(tmp_path / "model"))  # a worker of its own
    app = make_app(own, ServerConfig(name="x"), MemoryStore(tmp_path))
    with TestClient(app, "http://localhost") as client:
        own.session._worker.close()
        assert client.get("/health").status_code == 503


def test_the_page_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
