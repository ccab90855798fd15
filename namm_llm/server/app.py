"""The ASGI application: routes, and what stands before them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from namm_llm.documents import MemoryStore
from namm_llm.errors import NammError
from namm_llm.runner import Runner
from namm_llm.server.access import Access, Observe
from namm_llm.server.chat import chat_completions
from namm_llm.server.completions import completions
from namm_llm.server.config import ServerConfig
from namm_llm.server.documents import forget_memory, list_memories, make_memory, show_memory
from namm_llm.server.errors import ApiError, of_error
from namm_llm.server.memories import Memories
from namm_llm.server.responses import Conversations, responses
from namm_llm.server.service import Service
from namm_llm.server.status import detokenize, embeddings, health, metrics, model, models, tokenize

LOG = logging.getLogger("namm_llm.server")


async def page(http: HttpRequest) -> Response:
    """The page for people."""
    text = files("namm_llm.server").joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"content-security-policy": _POLICY})


_POLICY = "default-src 'self'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
ROUTES = [
    Route("/", page, methods=["GET"]),
    Route("/health", health, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/v1/models", models, methods=["GET"]),
    Route("/v1/models/{name:path}", model, methods=["GET"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/memories", list_memories, methods=["GET"]),
    Route("/v1/memories", make_memory, methods=["POST"]),
    Route("/v1/memories/{name}", show_memory, methods=["GET"]),
    Route("/v1/memories/{name}", forget_memory, methods=["DELETE"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
]


def make_app(runner: Runner, config: ServerConfig, store: MemoryStore | None = None) -> Starlette:
    """The application for one runner. store: of memories; the user's own unless given."""
    memories = Memories(runner, store or MemoryStore(), config.max_open_nbytes)
    service = Service(runner, config, memories)
    service.metrics.know(frozenset(route.path for route in ROUTES))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    app = assemble(ROUTES, config, service.metrics.request, lifespan)
    app.state.service, app.state.told = service, memories.told
    app.state.conversations = Conversations(config.max_responses, config.max_responses_nbytes)
    app.state.created = int(time.time())
    return app


def assemble(
    routes: Sequence[BaseRoute], config: ServerConfig, observe: Observe, lifespan: Any = None
) -> Starlette:
    """Routes behind the check of keys, errors as OpenAI has them. observe: of `Access`."""
    middleware = [Middleware(Access, config=config, observe=observe)]
    if config.cors:
        pages: Any = {"allow_origins": config.cors, "allow_methods": ["GET", "POST", "DELETE"]}
        pages["allow_headers"] = ["authorization", "content-type"]
        middleware.append(Middleware(CORSMiddleware, **pages))
    handlers: Any = {ApiError: _refuse, NammError: _refuse, HTTPException: _refuse_http}
    handlers[ClientDisconnect] = _left
    app = Starlette(False, routes, middleware, handlers, lifespan=lifespan)
    app.state.told = str
    return app


async def _refuse(http: HttpRequest, error: Exception) -> Response:
    return of_error(error, http.app.state.told).response()


async def _refuse_http(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{http.method} {http.url.path}"
    messages = {404: f"there is no {what}.", 405: f"{what} is not possible."}
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _left(http: HttpRequest, error: Exception) -> Response:
    return JSONResponse({}, 499)  # nobody reads it
