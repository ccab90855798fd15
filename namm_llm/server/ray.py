"""The server on a Ray cluster: replicas of one application behind one address (extra `ray`).

`serve run namm_llm.server.ray:build model=smollm2-135m`; docs/ray.md has a cluster's file.

Each replica has a runner. The ingress sends a request to a replica that has the memory open which
the request names (Ray Serve's multiplexing). Memories lie in one store, which all replicas share.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from namm_llm.config import CACHE, DEFAULT_MODEL, LOAD, RUN, SAMPLING, SamplingParams, split
from namm_llm.config.setting import check_names
from namm_llm.documents import MemoryStore
from namm_llm.documents.names import folded
from namm_llm.errors import UsageError
from namm_llm.runner import Runner
from namm_llm.server.access import bytes_of
from namm_llm.server.app import assemble, make_app
from namm_llm.server.config import ServerConfig
from namm_llm.server.errors import ApiError
from namm_llm.server.listen import config_of
from namm_llm.server.replies import data
from namm_llm.server.responses import Conversations

_OWN = {"name", "store", "max_open", "api_keys", "cors", "max_waiting"}
_KEY = "NAMM_LLM_API_KEY"
_CALL = "type http_version method scheme path raw_path query_string headers client server".split()
_KEYS = 1000  # that Ray remembers of a replica; how many memories are open is up to max_open


def build(args: Mapping[str, Any]) -> Any:
    """The Serve application. Raises UsageError for wrong args, and without a key, as Ray Serve can
    listen where other machines ask.

    args: all settings of a model, its cache and its answers; `store`, a folder that all machines
    see; `name`, `max_open`, `api_keys`, `cors` and `max_waiting` as `namm-llm serve` has them.
    """
    given = {"model": DEFAULT_MODEL, "prefix_caches": 16, "stop_loops": True, **args}
    own = {name: given.pop(name) for name in _OWN if name in given}
    own |= {name: (own[name],) for name in ("api_keys", "cors") if isinstance(own.get(name), str)}
    check_names(given, (*LOAD, *RUN, *CACHE, *SAMPLING), "namm_llm.server.ray")
    settings, sampling = split(given, (*LOAD, *RUN, *CACHE), SAMPLING)
    store, keys = own.pop("store", None), own.pop("api_keys", None) or [os.environ.get(_KEY)]
    if not all(keys):
        raise UsageError(f"set {_KEY} or api_keys: others can ask Ray Serve.")
    options = {"api_keys": tuple(keys), "sampling": SamplingParams(**sampling), **own}
    config = config_of(str(given["model"]), "localhost", **options)
    limits = (config.max_responses, config.max_responses_nbytes)
    kept = _deployment(Conversations, 100, 0).bind(*limits)
    # a stopping replica reads its texts to the end
    replicas = _deployment(Replica, 32, 1, graceful_shutdown_timeout_s=600)
    replicas = replicas.bind(settings, config, store, kept)
    return _deployment(serve.ingress()(Ingress), 4096, 0).bind(replicas, config)


def _deployment(kind: type, ongoing: int, cpus: int, **options: Any) -> Any:
    more = {"max_ongoing_requests": ongoing, "ray_actor_options": {"num_cpus": cpus}, **options}
    return serve.deployment(kind, max_queued_requests=256, **more)


class Replica:
    """A runner and the application that answers with it."""

    def __init__(
        self, settings: Mapping[str, Any], config: ServerConfig, store: str | None, kept: Any
    ) -> None:
        self._runner = Runner.load(**settings)
        self._app = make_app(self._runner, config, MemoryStore(store))
        # of all replicas, in a process of their own
        shared = SimpleNamespace(keep=kept.keep.remote, find=kept.find.remote)
        self._app.state.conversations = shared
        self._name = serve.get_replica_context().replica_id.unique_id

    async def answer(self, call: Mapping[str, Any], body: bytes) -> AsyncGenerator[Message, None]:
        """The ASGI messages of one request."""
        if key := serve.get_multiplexed_model_id():
            await self.here(key)
        received, sent = asyncio.Queue[Message](), asyncio.Queue[Message | None]()
        received.put_nowait({"type": "http.request", "body": body})
        task = asyncio.ensure_future(self._app(dict(call), received.get, sent.put))
        task.add_done_callback(lambda _: sent.put_nowait(None))
        try:
            while (message := await sent.get()) is not None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"x-namm-replica", self._name.encode()))
                yield message
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @serve.multiplexed(max_num_models_per_replica=_KEYS)  # type: ignore[untyped-decorator]
    async def here(self, key: str) -> str:
        """Tells Ray where requests with this key are answered; memories open by themselves."""
        return key

    async def states(self, owner: str) -> list[dict[str, Any]]:
        """The memories that this replica knows of."""
        states = self._app.state.service.memories.states
        return [each.to_dict() for each in await asyncio.to_thread(states, owner)]

    async def metrics(self) -> tuple[str, str]:
        """The name of this replica, and its numbers."""
        return self._name, self._app.state.service.metrics.text().decode()

    def check_health(self) -> None:
        """Ray replaces a replica whose model's thread has died."""
        if not self._runner.session.is_alive:
            raise RuntimeError("the thread that owns the model has died")

    async def __del__(self) -> None:  # Ray Serve awaits it where a replica stops
        await asyncio.to_thread(self._app.state.service.reading_threads.shutdown)


class Ingress:
    """What clients reach: checks their key, and asks a replica that has the memory open."""

    def __init__(self, replicas: Any, config: ServerConfig) -> None:
        self._replicas = replicas
        self._config = config

    def __serve_build_asgi_app__(self) -> Starlette:
        routes = [
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/v1/memories", self._list_memories, methods=["GET"]),
            Route("/v1/memories/{name}", self._show_memory, methods=["GET"]),
            Mount("/", self._relay),
        ]
        return assemble(routes, self._config, lambda path, status, seconds: None)

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have one replica answer. Where the client leaves, Ray Serve cancels this."""
        body = await bytes_of(HttpRequest(scope, receive), self._config)
        key = _key(scope["path"], body, scope["state"]["owner"])
        ask = self._replicas.options(method_name="answer", stream=True, multiplexed_model_id=key)
        response = ask.remote({name: scope[name] for name in _CALL}, body)
        head, begun = dict[str, Any](), False
        try:
            with _retryable():
                async for message in response:
                    if message["type"] == "http.response.start":
                        head = dict(message)  # sent with the first of the body, which may be lost
                        continue
                    for each in (message,) if begun else (head, message):
                        await send(each)
                    begun = True
        except ApiError as error:
            if not begun:
                raise
            await send({"type": "http.response.body", "body": data(error.body).encode()})
        finally:
            response.cancel()  # nothing happens if it has ended

    async def _everywhere(self, method: str, *args: Any) -> list[Any]:
        """What each replica says, those left out that are lost meanwhile."""
        with _retryable():
            asked = self._replicas.broadcast(method, *args)
            found = await asked.results_async(return_exceptions=True)
        return [each for each in found if not isinstance(each, Exception)]

    async def _metrics(self, http: HttpRequest) -> Response:
        return Response(labelled(await self._everywhere("metrics")), media_type=CONTENT_TYPE_LATEST)

    async def _states(self, http: HttpRequest) -> dict[str, dict[str, Any]]:
        """Of each memory what the replica says that reads it, or else the last word."""
        found = [each for own in await self._everywhere("states", http.state.owner) for each in own]
        found.sort(key=lambda each: (each["status"] == "reading", each["created_at"]))
        return {each["name"]: each for each in found}

    async def _list_memories(self, http: HttpRequest) -> Response:
        states = await self._states(http)
        return JSONResponse({"object": "list", "data": list(states.values())})

    async def _show_memory(self, http: HttpRequest) -> Response:
        name = http.path_params["name"]
        if state := (await self._states(http)).get(name):
            return JSONResponse(state)
        raise ApiError(404, f"there is no memory {name!r}.", code="not_found")


@contextmanager
def _retryable() -> Iterator[None]:
    """ApiError with status 503 where a replica was lost, or none takes the request."""
    try:
        yield
    except RayTaskError:
        raise
    except (RayError, RayServeException) as error:
        message = "the replica that was asked is lost or busy; ask again in a moment."
        raise ApiError(503, message, code="overloaded", headers={"retry-after": "1"}) from error


def _key(path: str, body: bytes, owner: str) -> str:
    """Equal for requests that are best answered in one place: those about the same memory, or with
    the same `prompt_cache_key`; empty for others.
    """
    given: Any = None
    with suppress(ValueError, RecursionError):  # a replica says what is wrong with it
        given = json.loads(body)
    field = "name" if path == "/v1/memories" else "memory"
    name = given.get(field) or given.get("prompt_cache_key") if isinstance(given, dict) else None
    if path.startswith("/v1/memories/"):
        name = path.removeprefix("/v1/memories/")
    name = name[0] if isinstance(name, list) else name  # equal lists go to one place
    if not isinstance(name, str):
        return ""
    # a hash, as Ray's log and numbers show it
    return hashlib.sha256(f"{owner} {folded(name)}".encode()).hexdigest()[:16]


def labelled(texts: list[tuple[str, str]]) -> str:
    """Names of replicas with their numbers in Prometheus' text format -> one text, each number with
    its replica.
    """
    families = dict[str, dict[str, None]]()
    for replica, text in texts:
        family = dict[str, None]()
        for line in text.splitlines():
            if line.startswith("#"):
                family = families.setdefault(line.split()[2], {})
            label = f'\\1{{replica="{replica}"'  # of `name{labels} number` or `name number`
            line = re.sub(r"^(\w+) ", label + "} ", re.sub(r"^(\w+)\{", label + ",", line))
            family[line] = None
    return "".join(f"{line}\n" for family in families.values() for line in family)
