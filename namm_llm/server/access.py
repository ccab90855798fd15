"""What every request passes: its key, its size, its number, and the log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from namm_llm.server.config import ServerConfig
from namm_llm.server.errors import ApiError, of_error, of_validation, overloaded

LOG = logging.getLogger("namm_llm.server")
OPEN_PATHS = ("/", "/health")
"""What may be asked without a key: the page, which asks for one, and whether the server lives."""
T = TypeVar("T", bound=BaseModel)
Observe = Callable[[str, int, float], None]  # path, status, seconds


class Access:
    """ASGI middleware: checks the key, numbers the request, logs it without its body.

    observe: called with path, status and seconds of each request.
    """

    def __init__(self, app: ASGIApp, *, config: ServerConfig, observe: Observe) -> None:
        self._app = app
        self._config = config
        self._keys = config.api_keys
        self._observe = observe
        self._held = 0  # bytes of the requests that are in work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started, status, held = f"req_{uuid4().hex}", time.perf_counter(), 0, 0

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = number
            await send(message)

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held, self._held = held + size, self._held + size
            if self._held > self._config.max_bodies:
                raise _TOO_MUCH
            return message

        try:
            await self._answer(scope, counted, numbered)
        except Exception:
            LOG.exception("%s %s %s failed", number, scope["method"], scope["path"])
            if not status:
                await _FAILED.response()(scope, receive, numbered)
        finally:
            self._held -= held
            seconds = time.perf_counter() - started
            self._observe(scope["path"], status, seconds)
            LOG.info("%s %s %s %d %.3f s", number, scope["method"], scope["path"], status, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        owner, is_open = self._owner(scope), scope["path"] in OPEN_PATHS
        refused = self._wrong_origin(scope)
        if owner is None and scope["method"] != "OPTIONS" and not is_open:
            refused = _REFUSED
        if refused is not None:
            await refused.response()(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "owner": owner or ""}
        await self._app(scope, receive, send)

    def _wrong_origin(self, scope: Scope) -> ApiError | None:
        """What a page of another site is told that asks in the name of whoever looks at it."""
        headers, config = Headers(scope=scope), self._config
        host, origin = headers.get("host", ""), headers.get("origin")
        # with keys a page needs one; an address cannot be given another meaning, as a name can
        if not (config.api_keys or "*" in config.hosts or _is_known(host, config.hosts)):
            message = f"this server has no name {host[:100]!r}; --allow-host gives it one."
            return ApiError(403, message, code="unknown_host")
        allowed = (f"http://{host}", f"https://{host}", *config.cors)
        is_reading = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if origin is None or origin in allowed or "*" in config.cors or is_reading:
            return None
        message = f"pages of {origin[:100]} may not ask; --cors names those that may."
        return ApiError(403, message, code="unknown_origin")

    def _owner(self, scope: Scope) -> str | None:
        """Whose caches and memories the request may use; empty without keys, None if refused."""
        if not self._keys:
            return ""
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # all are compared, so that the time says nothing about which one is near
        same = [hmac.compare_digest(given.encode(), key.encode()) for key in self._keys]
        if scheme.lower() != "bearer" or not any(same):
            return None
        return hashlib.sha256(given.encode()).hexdigest()[:16]


def _is_known(host: str, names: tuple[str, ...]) -> bool:
    """Whether this is an address, localhost or one of the names. host: with a port or without."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return name.lower() in ("localhost", *names)


_FAILED = of_error(Exception())
_TOO_MUCH = overloaded("too many bytes of requests are in work")
_REFUSED = ApiError(
    401,
    "this server asks for an API key: send `Authorization: Bearer KEY`.",
    code="invalid_api_key",
    headers={"www-authenticate": "Bearer"},
)


async def body_of(request: Request, kind: type[T], config: ServerConfig) -> T:
    """The request's JSON, checked. ApiError if it is too large, too slow, no JSON or wrong."""
    # a page of another site could send any other type unasked
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ApiError(415, "send JSON with `content-type: application/json`.")
    raw = await bytes_of(request, config)
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise of_validation(error, raw) from None


async def bytes_of(request: Request, config: ServerConfig) -> bytes:
    """The request's body. ApiError if it is too large or too slow."""
    try:
        return await asyncio.wait_for(_all_bytes(request, config.max_body), config.body_seconds)
    except asyncio.TimeoutError:
        raise ApiError(
            408, f"the request did not arrive within {config.body_seconds:g} s.", code="timeout"
        ) from None


async def _all_bytes(request: Request, most: int) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            message = f"the request has more than {most} bytes, the most that this server takes."
            raise ApiError(413, message, code="request_too_large")
    return bytes(found)


async def unless_it_leaves(request: Request, answer: Awaitable[Any]) -> Any:
    """What `answer` gives; cancelled as soon as the client has closed the connection, which raises
    `ClientDisconnect`.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(left())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
