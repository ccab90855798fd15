"""`/v1/memories`: texts that are read once and asked by their name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Message

from namm_llm.errors import DocumentError, UsageError
from namm_llm.server.access import body_of, bytes_of
from namm_llm.server.bodies import MemoryBody
from namm_llm.server.errors import ApiError
from namm_llm.server.service import Service, T


async def list_memories(http: HttpRequest) -> Response:
    """All memories of whoever asks."""
    service: Service = http.app.state.service
    owner = http.state.owner
    states = await service.run(lambda: service.memories.states(owner))
    return JSONResponse({"object": "list", "data": [each.to_dict() for each in states]})


async def make_memory(http: HttpRequest) -> Response:
    """Begin to read a text; 202 with the state of its memory, which can be asked for later."""
    service: Service = http.app.state.service
    name, text = await _given(http, service)
    owner = http.state.owner
    with ExitStack() as held:
        held.enter_context(service.readings.take())
        state = service.memories.begin(name, owner)
        read = partial(service.memories.read, state, text, owner)
        reading = asyncio.get_running_loop().run_in_executor(service.reading_threads, read)
        release = held.pop_all().close
        reading.add_done_callback(lambda _: release())
    return JSONResponse(state.to_dict(), 202)


async def show_memory(http: HttpRequest) -> Response:
    """The state of one memory."""
    service: Service = http.app.state.service
    name, owner = http.path_params["name"], http.state.owner
    state = await _or_404(service, lambda: service.memories.state(name, owner))
    return JSONResponse(state.to_dict())


async def forget_memory(http: HttpRequest) -> Response:
    """Remove one memory."""
    service: Service = http.app.state.service
    name, owner = http.path_params["name"], http.state.owner
    await _or_404(service, lambda: service.memories.forget(name, owner))
    return JSONResponse({"object": "memory", "name": name, "deleted": True})


async def _or_404(service: Service, function: Callable[[], T]) -> T:
    try:
        return await service.run(function)
    except DocumentError as error:
        raise ApiError(404, service.memories.told(error), code="not_found") from error


async def _given(http: HttpRequest, service: Service) -> tuple[str, str]:
    """Name and text of a request: JSON, or a form with a file."""
    if not http.headers.get("content-type", "").startswith("multipart/form-data"):
        body = await body_of(http, MemoryBody, service.config)
        return body.name, body.text
    raw = await bytes_of(http, service.config)

    async def whole() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    try:
        async with HttpRequest(http.scope, whole).form(max_files=1, max_fields=1) as form:
            file, name = form.get("file"), form.get("name")
            if not isinstance(file, UploadFile):
                raise UsageError("an upload is a form with a file, and a name if it has another.")
            # the file's own name is a label here, never a path
            label = name if isinstance(name, str) else str(file.filename or "").rpartition("/")[2]
            return label, _text_of(await file.read())
    except MultiPartException as error:
        raise UsageError(f"the form cannot be read: {error.message}") from error


def _text_of(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8 text (byte {error.start}); upload plain text."
        ) from error
