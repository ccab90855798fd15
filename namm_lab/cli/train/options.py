"""What the commands of `namm-llm train` have in common: their options, and what they say."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import click

from namm_llm.cli.options import SectionedCommand, setting_option
from namm_llm.config import settings_of

SOURCE_OPTIONS = (
    click.option(
        "--texts",
        metavar="FOLDER",
        help="Make documents of these .txt, .md and .py files.  [default: Python's own]",
    ),
    setting_option("interval"),
    click.option(
        "--seed", metavar="N", type=int, help="Draws other documents and numbers.  [default: 0]"
    ),
    click.option("--force", is_flag=True, help="Replace what is there."),
)
FAMILY_OPTION = click.option(
    "--family",
    metavar="F",
    help="What the NAMM sees: neighbours, published, universal, which needs no RoPE, or heads, "
    "which makes one for this model alone.  [default: neighbours]",
)
MODEL_SETTINGS = tuple(each.name for each in settings_of("load"))
LENGTH_OPTION = "Tokens of the documents; several take turns."
NAMM_OUT = click.option(
    "-o", "--out", metavar="FILE", help="The NAMM file to write.  [default: namm.safetensors]"
)


def command(
    name: str, *options: Callable[[Any], Any], out: Callable[[Any], Any] = NAMM_OUT
) -> Callable[[Callable[..., None]], click.Command]:
    """A command with the model's options, `options` and those of documents; it gets what the user
    gave, as one dictionary.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def given(**values: Any) -> None:
            function(
                {
                    key: value
                    for key, value in values.items()
                    if not (value is None or value is False or value == ())
                }
            )

        for option in reversed(
            (out, *options, *SOURCE_OPTIONS, *map(setting_option, MODEL_SETTINGS))
        ):
            given = option(given)
        return click.command(name, cls=SectionedCommand)(given)

    return decorate


def tell(line: str) -> None:
    """A line on stderr: stdout has the result alone."""
    click.echo(line, err=True)


def minutes(began: float) -> str:
    """Time since then, by `time.perf_counter`."""
    seconds = time.perf_counter() - began
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
