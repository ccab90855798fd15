"""`namm-llm serve`."""

from __future__ import annotations

import logging
import os

import click

from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import tell
from namm_llm.errors import UsageError

KEY_VARIABLE = "NAMM_LLM_API_KEY"


@command("load", "run", "cache", "sampling", output=False, prefix_caches=16, stop_loops=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any."
)
@click.option("--name", help="The model's name for clients.  [default: that of --model]")
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    help=f"Ask clients for this key; or {KEY_VARIABLE}.  May be repeated, each with memories of "
    "its own.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Answers that wait or are written at one time; more are refused.",
)
@click.option(
    "--max-readings",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Texts that are read into memories or wait for it; more are refused.",
)
@click.option(
    "--max-open", default="1GB", show_default=True, metavar="SIZE", help="Memories held open."
)
@click.option("--cors", multiple=True, metavar="ORIGIN", help="Origin whose pages may ask.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Name of this server.")
@click.option("--log-requests", is_flag=True, help="One line on stderr for each request.")
def serve(
    host: str,
    port: int,
    name: str | None,
    api_keys: tuple[str, ...],
    max_waiting: int,
    max_readings: int,
    max_open: str,
    cors: tuple[str, ...],
    hosts: tuple[str, ...],
    log_requests: bool,
    settings: Settings,
) -> None:
    """Serve a model to clients of OpenAI's interface, at http://HOST:PORT/v1.

    Clients name the model by its NAME or by `default`. `memory` in a request names a document of
    the store; POST /v1/memories reads one. A page for people is at http://HOST:PORT/.

    \b
    namm-llm serve --model model.gguf --budget 0.25
    curl localhost:8000/v1/chat/completions -H 'content-type: application/json' \\
      -d '{"model": "default", "messages": [{"role": "user", "content": "Hello"}]}'
    """
    try:
        from namm_llm.server.listen import config_of, listen
    except ModuleNotFoundError as error:
        raise UsageError(
            f"namm-llm serve needs {error.name}: pip install 'namm-llm[serve]'."
        ) from error
    keys = api_keys or tuple(filter(None, [os.environ.get(KEY_VARIABLE)]))
    config = config_of(
        settings.model,
        host,
        name=name,
        api_keys=keys,
        cors=cors,
        hosts=(host, *hosts),
        sampling=settings.params(),
        max_open=max_open,
        max_waiting=max_waiting,
        max_readings=max_readings,
    )
    runner = settings.load()
    if log_requests:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("namm_llm.server").setLevel(logging.INFO)
    tell(f"{config.name} is served at http://{host}:{port}/v1 (Ctrl-C ends).")
    listen(runner, config, host, port)
