"""`ServerConfig`: who may ask the server, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field

from namm_llm.config import SamplingParams
from namm_llm.errors import UsageError

MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Who may ask the server, and how much. UsageError for limits that are out of range."""

    name: str
    """The model's name for clients; `default` is another."""
    api_keys: tuple[str, ...] = ()
    """Whoever has none of them is refused; without keys everybody may ask."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may ask."""
    hosts: tuple[str, ...] = ()
    """Names of this server beside localhost and addresses, `*` any; with keys any will do."""
    max_waiting: int = 64
    """Answers that are written or wait at one time."""
    max_readings: int = 8
    """Texts that are read into memories or wait for that."""
    max_body: int = 32 * MEBIBYTE
    """Bytes of a request."""
    max_bodies: int = 256 * MEBIBYTE
    """Bytes of all requests that are in work."""
    body_seconds: float = 60.0
    """Time for a client to send the head of a request, to send the rest, and to take a part of an
    answer.
    """
    max_open_nbytes: int = 1024 * MEBIBYTE
    """Bytes of memories that are held open; the least recently used are closed first."""
    max_responses: int = 256
    """Responses that `previous_response_id` can name; the oldest are forgotten first."""
    max_responses_nbytes: int = 64 * MEBIBYTE
    """Bytes of their conversations."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """How answers are written where the request does not say."""

    def __post_init__(self) -> None:
        for name in vars(self):
            if name.startswith("max_") and getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        if not all(self.api_keys):
            raise UsageError("an API key must not be empty.")
