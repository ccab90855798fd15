"""Errors as OpenAI's clients expect them: a status and one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.responses import JSONResponse

from namm_llm.errors import ContextError, DocumentError, NammError, UsageError

_CODES: dict[type[Exception], str] = {
    ContextError: "context_length_exceeded",
    DocumentError: "invalid_memory",
    UsageError: "invalid_value",
}
_SHOWN = 200  # characters of what a client wrote


class ApiError(Exception):
    """An error that a client gets. status: of HTTP. param: the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        """What is sent."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(why: str) -> ApiError:
    """What a client is told that may ask again."""
    headers = {"retry-after": "1"}
    return ApiError(503, f"{why}; ask again in a moment.", code="overloaded", headers=headers)


def of_error(error: Exception, told: Callable[[Exception], str] = str) -> ApiError:
    """What a client is told; of an error that is not ours, nothing but that there was one.

    told: an error's message without what clients are not to know.
    """
    if isinstance(error, ApiError):
        return error
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return ApiError(400, told(error), code=code)
    is_ours = isinstance(error, NammError)
    return ApiError(500, told(error) if is_ours else "the server failed; its log says why.")


def of_validation(error: ValidationError, raw: bytes = b"") -> ApiError:
    """What is wrong with the first wrong field of a request, with its name. raw: the JSON."""
    found: list[Any] = error.errors(include_url=False, include_input=False)
    value = None
    with suppress(ValueError):
        value = from_json(raw)
    # a union tells of all its branches: what is wrong deepest inside is of the one that was meant
    placed = [
        (_place(each, value), each) for each in found if each["loc"][:1] == found[0]["loc"][:1]
    ]
    loc, first = max(placed, key=lambda each: (len(each[0]), not each[1]["type"].endswith("_type")))
    param = ".".join(loc)[:_SHOWN] or None
    if first["type"] == "extra_forbidden":
        message = f"{param} is not supported by this server; leave it out."
        return ApiError(400, message, code="unsupported_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing.", code="missing_required_parameter", param=param)
    what = " ".join(first["msg"].split())[:_SHOWN].removesuffix(".")
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        what = f"{context['tag'][:_SHOWN]!r} is not supported, only {context['expected_tags']}"
    where = f"{param}: " if param else "the request: "
    return ApiError(400, f"{where}{what}.", code="invalid_value", param=param)


def _place(error: Any, value: Any) -> list[str]:
    """The names on the way to what is wrong in `value`, without those of a union's branches."""
    found = []
    for at, step in enumerate(error["loc"], 1):
        is_there = step in value if isinstance(value, dict) else isinstance(step, int)
        if is_there and isinstance(value, dict | list):
            value = value[step]
        elif value is not None and not (error["type"] == "missing" and at == len(error["loc"])):
            continue
        found.append(str(step))
    return found
