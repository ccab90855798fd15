"""Two replicas on this machine, one of them killed while it is asked (make test-ray)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from namm_llm.runner import Runner

pytestmark = [pytest.mark.ray, pytest.mark.enable_socket]
KEY = "a key of these tests"
SETTINGS = {"budget": 0.5, "policy": "snapkv"}
NAMES = [f"note {number}" for number in range(50)]
WORDS = ("What", "Who", "When", "Why")
QUESTIONS = [(name, f"{word} does {name} say?") for word in WORDS for name in NAMES]
REPLICA = "ray::ServeReplica:namm-llm:Replica"
LONG = {"max_tokens": 1500, "stop_loops": False, "logit_bias": {"1": -100, "2": -100}}


def text_of(name: str) -> str:
    number = int(name.split()[1])
    return f"The access code of the {number} vault is {number * 97}. " * 6


def wait_for(what: Callable[[], object], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@dataclass
class Cluster:
    """`serve run` of a file as in docs/ray.md, and a client of it."""

    client: httpx.Client
    process: psutil.Process
    refused: list[httpx.Response] = field(default_factory=list)
    """Answers that told the client to ask again."""

    def replicas(self) -> set[int]:
        """The processes that hold a model."""
        found = set[int]()
        for each in self.process.children(recursive=True):
            with suppress(psutil.Error):
                found |= {each.pid} if " ".join(each.cmdline()).startswith(REPLICA) else set()
        return found

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json={"model": "tiny", **body})

    def ask(self, memory: str | list[str], question: str, **more: Any) -> httpx.Response:
        """The answer about a memory, whatever it is."""
        body = {"max_tokens": 12, "temperature": 0, "memory": memory, **more}
        messages = [{"role": "user", "content": question}]
        return self.post("/v1/chat/completions", messages=messages, **body)

    def ask_again(self, memory: str | list[str], question: str, **more: Any) -> httpx.Response:
        """The answer of a client that asks again when it is told to."""
        for _ in range(30):
            found = self.ask(memory, question, **more)
            if found.status_code != 503:
                assert found.status_code == 200, found.text
                return found
            self.refused.append(found)
            time.sleep(float(found.headers["retry-after"]))
        raise AssertionError("nobody answered")

    def states(self) -> dict[str, str]:
        listed = self.client.get("/v1/memories").json()["data"]
        return {each["name"]: each["status"] for each in listed}

    def numbers(self, name: str) -> dict[str, float]:
        """A number of each replica, summed over its other labels."""
        found = dict[str, float]()
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name:
                    replica = sample.labels["replica"]
                    found[replica] = found.get(replica, 0) + sample.value
        return found


@pytest.fixture(scope="module")
def cluster(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = {**SETTINGS, "model": str(tiny_folder), "name": "tiny", "store": str(folder / "store")}
    scaling = {"min_replicas": 2, "max_replicas": 2}
    application = {
        "name": "namm-llm",
        "import_path": "namm_llm.server.ray:build",
        "args": args,
        "runtime_env": {"env_vars": {"NAMM_LLM_API_KEY": KEY}},
        "deployments": [{"name": "Replica", "autoscaling_config": scaling}],
    }
    file = folder / "serve.json"  # JSON is YAML
    http = {"host": "127.0.0.1", "port": port}
    file.write_text(json.dumps({"http_options": http, "applications": [application]}))
    started = serve_run(file)
    process = psutil.Process(started.pid)
    try:
        headers = {"authorization": f"Bearer {KEY}"}
        options = {"base_url": f"http://127.0.0.1:{port}", "headers": headers, "timeout": 600}
        # a connection for each request, so that a broken one is of the answer that was asked
        with httpx.Client(**options, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            found = Cluster(client, process)
            wait_for(lambda: answers(client) or started.poll() is not None, 600)
            assert started.poll() is None, (folder / "log").read_text()
            wait_for(lambda: len(found.numbers("namm_answers_in_flight")) == 2)
            yield found
    finally:
        children = process.children(recursive=True)
        started.terminate()
        started.wait(120)
        for left in psutil.wait_procs(children, timeout=30)[1]:
            left.kill()


def serve_run(file: Path) -> subprocess.Popen[bytes]:
    own = {"RAY_ADDRESS": "local", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [Path(sys.executable).parent / "serve", "run", file]
    with (file.parent / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own})


def answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False


@pytest.fixture(scope="module")
def notes(cluster: Cluster) -> None:
    """All notes are read."""
    for name in NAMES:
        made = cluster.client.post("/v1/memories", json={"name": name, "text": text_of(name)})
        while made.status_code == 503:
            time.sleep(float(made.headers["retry-after"]))
            made = cluster.client.post("/v1/memories", json={"name": name, "text": text_of(name)})
        assert made.status_code == 202, made.text
    wait_for(lambda: cluster.states() == dict.fromkeys(NAMES, "ready"))


@pytest.fixture(scope="module")
def expected(tiny_folder: Path) -> dict[tuple[str, str], str]:
    """What one process answers, that reads everything by itself."""
    runner = Runner.load(tiny_folder, **SETTINGS)
    documents = {name: runner.read(text_of(name)) for name in NAMES}

    def answer(name: str, question: str) -> str:
        messages = [{"role": "user", "content": question}]
        options = {"max_tokens": 12, "temperature": 0, "stop_loops": True}
        return documents[name].ask(messages, **options).text

    return {pair: answer(*pair) for pair in QUESTIONS}


def replica_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.headers["x-namm-replica"])


def content(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def test_who_has_no_key_is_refused(cluster: Cluster) -> None:
    none = {"authorization": "Bearer another"}
    for path in ("/v1/models", "/v1/memories", "/v1/memories/x", "/metrics"):
        assert cluster.client.get(path, headers=none).status_code == 401


@pytest.mark.usefixtures("notes")
def test_both_replicas_read_and_every_one_tells_of_all(cluster: Cluster) -> None:
    made = cluster.numbers("namm_requests_total")
    assert len(made) == 2
    homes = {replica_of(cluster.ask(name, "What?")) for name in NAMES}
    assert homes == set(made)
    for _ in range(4):
        assert cluster.client.get("/v1/memories/NOTE 7").status_code == 404  # as on one server
        assert cluster.client.get("/v1/memories/note 7").json()["status"] == "ready"


@pytest.mark.usefixtures("notes")
def test_a_memory_is_asked_where_it_is_open(cluster: Cluster) -> None:
    """Also under other spellings of its name, and first in a list."""
    one, other = NAMES[:2]
    home = replica_of(cluster.ask(one, "What?"))
    for name in (one, one.upper(), [one, other], one, [one]):
        assert replica_of(cluster.ask(name, "Who?")) == home


@pytest.mark.usefixtures("notes")
def test_a_stream_is_the_answer_in_pieces(cluster: Cluster) -> None:
    whole = content(cluster.ask(NAMES[0], "What?"))
    lines = cluster.ask(NAMES[0], "What?", stream=True).text.splitlines()
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole


def test_a_client_that_leaves_stops_its_answer(cluster: Cluster) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "The fox"}], **LONG}

    def running() -> float:
        return sum(cluster.numbers("namm_answers_in_flight").values())

    path = "/v1/chat/completions"
    with cluster.client.stream("POST", path, json={**body, "stream": True}) as answer:
        lines = answer.iter_lines()  # held, as the stream ends with it
        next(lines)
        wait_for(lambda: running() == 1, 10)
    wait_for(lambda: running() == 0, 10)


def test_a_response_is_gone_on_from_by_any_replica(cluster: Cluster) -> None:
    first = cluster.post("/v1/responses", input="The fox.", max_output_tokens=4)
    assert first.status_code == 200, first.text
    homes = set[str]()

    def both() -> bool:
        with ThreadPoolExecutor(4) as threads:
            body = {"input": "Why?", "previous_response_id": first.json()["id"]}
            asked = [
                threads.submit(cluster.post, "/v1/responses", max_output_tokens=4, **body)
                for _ in range(8)
            ]
            homes.update(replica_of(each.result()) for each in asked)
        return len(homes) == 2

    wait_for(both)
    gone = cluster.post("/v1/responses", input="Why?", previous_response_id="resp_0")
    assert gone.status_code == 404
    assert gone.json()["error"]["param"] == "previous_response_id"


@pytest.mark.usefixtures("notes")
def test_a_killed_replica_loses_no_memory_and_no_answer(
    cluster: Cluster, expected: dict[tuple[str, str], str]
) -> None:
    before = cluster.replicas()
    assert len(before) == 2
    # a long answer and a long stream at each replica
    homes = {replica_of(cluster.ask(name, "What?")): name for name in NAMES}
    assert len(homes) == 2
    with ThreadPoolExecutor(8) as threads:
        wholes = [threads.submit(cluster.ask, name, "What?", **LONG) for name in homes.values()]
        streams = [
            threads.submit(cluster.ask, name, "What?", **LONG, stream=True)
            for name in homes.values()
        ]
        wait_for(lambda: set(cluster.numbers("namm_answers_in_flight").values()) == {2})
        asked: dict[tuple[str, str], Future[httpx.Response]] = {
            pair: threads.submit(cluster.ask_again, *pair) for pair in QUESTIONS
        }
        wait_for(lambda: sum(each.done() for each in asked.values()) > len(QUESTIONS) // 4)
        os.kill(min(before), signal.SIGKILL)
        found = {pair: content(each.result()) for pair, each in asked.items()}
    assert found == expected
    told = sorted((each.result() for each in wholes), key=lambda each: each.status_code)
    assert [each.status_code for each in told] == [200, 503]
    for each in (told[1], *cluster.refused):
        assert int(each.headers["retry-after"]) > 0
        assert each.json()["error"]["type"] == "server_error"
    ends = sorted(each.result().text.rstrip().splitlines()[-1] for each in streams)
    assert ends[0] == "data: [DONE]"
    assert json.loads(ends[1].removeprefix("data: "))["error"]["code"] == "overloaded"
    wait_for(lambda: len(cluster.replicas() - before) == 1)
    wait_for(lambda: len(cluster.numbers("namm_answers_in_flight")) == 2)
    assert cluster.states() == dict.fromkeys(NAMES, "ready")
