"""Errors as OpenAI's clients expect them: a status and one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from namm_llm.errors import ContextError, DocumentError, NammError, UsageError


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


def of_error(error: Exception) -> ApiError:
    """What a client is told; of an error that is not ours, nothing but that there was one."""
    match error:
        case ApiError():
            return error
        case ContextError():
            return ApiError(400, str(error), code="context_length_exceeded")
        case DocumentError():
            return ApiError(400, str(error), code="invalid_memory")
        case UsageError():
            return ApiError(400, str(error), code="invalid_value")
        case NammError():
            return ApiError(500, str(error))
    return ApiError(500, "the server failed; its log says why.")


def of_validation(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a request, with the name of its field."""
    first: Any = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(map(str, first["loc"])) or None
    if first["type"] == "extra_forbidden":
        message = f"{param} is not supported by this server; leave it out."
        return ApiError(400, message, code="unsupported_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing.", code="missing_required_parameter", param=param)
    what = first["msg"].removesuffix(".")
    where = f"{param}: " if param else "the request: "
    return ApiError(400, f"{where}{what}.", code="invalid_value", param=param)
