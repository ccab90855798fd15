"""A server of one process, at an address of this machine."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from namm_llm.errors import UsageError
from namm_llm.policies.budget import ByteBudget, parse_budget
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig


def config_of(
    model: str, host: str, *, name: str | None = None, max_open: str = "1GB", **fields: Any
) -> ServerConfig:
    """The limits of a server that listens at `host`. UsageError for one that other machines can
    ask without a key.

    name: of the model for clients; that of its file unless given. max_open: bytes, as text.
    """
    if not fields.get("api_keys") and not _is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines ask; give an --api-key (or NAMM_LLM_API_KEY) too."
        )
    size = parse_budget(max_open)
    if not isinstance(size, ByteBudget):
        raise UsageError(f"--max-open must be a size such as 1GB, not {max_open!r}.")
    name = name or Path(model).name.removesuffix(".gguf") or model
    return ServerConfig(name=name, max_open_nbytes=size.nbytes, **fields)


def listen(runner: Runner, config: ServerConfig, host: str, port: int) -> None:
    """Serve until the process is told to end."""
    app = make_app(runner, config)
    server_of(app, config, host=host, port=port, log_level="warning").run()


def server_of(app: Starlette, config: ServerConfig, **options: Any) -> uvicorn.Server:
    """uvicorn, with a limit of time for clients. options: of `uvicorn.Config`."""

    class Connection(H11Protocol):
        """Ends a connection whose client sends half a head, or takes nothing of its answer."""

        _half: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # uvicorn has a limit between requests only
            self._half = self.loop.call_later(config.body_seconds, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            is_half = self.conn.their_state is h11.IDLE
            if self._half is not None and not is_half:
                self._half.cancel()
                self._half = None
            elif self._half is None and is_half:
                self._half = self.loop.call_later(config.body_seconds, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(config.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()

    return uvicorn.Server(uvicorn.Config(app, http=Connection, access_log=False, **options))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
