"""A server of one process, at an address of this machine."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import uvicorn

from namm_llm.errors import UsageError
from namm_llm.policies.budget import ByteBudget, parse_budget
from namm_llm.runner import Runner
from namm_llm.server.app import make_app
from namm_llm.server.config import ServerConfig


def config_of(
    model: str, host: str, *, name: str | None, max_open: str, **fields: Any
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
    options = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    uvicorn.Server(options).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
