"""What is served, and how it is: `/health`, `/metrics`, `/v1/models`, tokens and embeddings."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from namm_llm.engine.forward import embed
from namm_llm.errors import UsageError
from namm_llm.server.access import body_of, unless_it_leaves
from namm_llm.server.bodies import DetokenizeBody, EmbeddingBody, TokenizeBody
from namm_llm.server.completions import prompts_of
from namm_llm.server.errors import ApiError
from namm_llm.server.service import Service


async def health(http: HttpRequest) -> Response:
    """200 while the model can answer, 503 when its thread has died."""
    service: Service = http.app.state.service
    if service.runner.session.is_alive:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "the thread that owns the model has died"}, 503)


async def metrics(http: HttpRequest) -> Response:
    """The numbers of `Metrics`."""
    service: Service = http.app.state.service
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


async def models(http: HttpRequest) -> Response:
    """The models that are served: one, under two names."""
    service: Service = http.app.state.service
    data = [_model(http, name) for name in service.names]
    return JSONResponse({"object": "list", "data": data})


async def model(http: HttpRequest) -> Response:
    """One of them."""
    service: Service = http.app.state.service
    name = http.path_params["name"]
    service.check_model(name)
    return JSONResponse(_model(http, name))


def _model(http: HttpRequest, name: str) -> dict[str, Any]:
    service: Service = http.app.state.service
    return {
        "id": name,
        "object": "model",
        "created": http.app.state.created,
        "owned_by": "namm-llm",
        "context_window": service.runner.context_window,
        "namm": {"cache": service.runner.config.describe()},
    }


async def tokenize(http: HttpRequest) -> Response:
    """The token ids of a text, or of messages with their chat template."""
    service: Service = http.app.state.service
    body = await body_of(http, TokenizeBody, service.config)
    service.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise UsageError("give one of prompt and messages.")
    runner = service.runner

    def ids() -> list[int]:
        if body.messages is not None:
            return runner.session.pictures.token_ids([each.plain() for each in body.messages])
        return runner.encode(body.prompt or "")

    found = await service.run(ids)
    window = runner.context_window
    return JSONResponse({"tokens": found, "count": len(found), "max_model_len": window})


async def detokenize(http: HttpRequest) -> Response:
    """The text of token ids, special tokens left out."""
    service: Service = http.app.state.service
    body = await body_of(http, DetokenizeBody, service.config)
    service.check_model(body.model)
    _check_ids(service, body.tokens)
    return JSONResponse({"prompt": service.runner.decode(body.tokens)})


def _check_ids(service: Service, ids: Iterable[int]) -> None:
    vocabulary = service.runner.loaded.vocabulary
    if any(not 0 <= id < vocabulary for id in ids):
        raise UsageError(f"token ids go from 0 to {vocabulary - 1}.")


async def embeddings(http: HttpRequest) -> Response:
    """The mean of a text's last hidden states, of length one."""
    service: Service = http.app.state.service
    body = await body_of(http, EmbeddingBody, service.config)
    service.check_model(body.model)
    prompts = prompts_of(body.input)
    session = service.runner.session
    lists = await service.run(lambda: [session.format.prompt(prompt) for prompt in prompts])
    _check_ids(service, chain(*lists))
    if service.positions < max(map(len, lists)):
        message = f"a text has {max(map(len, lists))} tokens, more than {service.positions}."
        raise ApiError(400, message, code="context_length_exceeded")

    async def compute() -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        jobs = [partial(session.call, partial(embed, session.loaded.model, ids)) for ids in lists]
        return [(await service.run(job, service.embedding_thread)).numpy() for job in jobs]

    with service.answers.take(len(lists)):
        vectors = await unless_it_leaves(http, compute())
    data = [
        {"object": "embedding", "index": at, "embedding": _shown(vector, body.encoding_format)}
        for at, vector in enumerate(vectors)
    ]
    tokens = sum(map(len, lists))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    name = service.config.name
    return JSONResponse({"object": "list", "data": data, "model": name, "usage": usage})


def _shown(vector: np.ndarray[Any, np.dtype[np.float32]], form: str) -> str | list[float]:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(number) for number in vector]
