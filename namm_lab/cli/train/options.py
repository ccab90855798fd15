"""What the commands of `namm-llm train` have in common: their options, and what they say."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import click

from namm_llm.cli.options import SectionedCommand, setting_option
from namm_llm.config import LOAD
from namm_llm.errors import UsageError

SOURCE_OPTIONS = (
    click.option(
        "--texts",
        metavar="FOLDER",
        help="Make documents of these .txt, .md and .py files.  [default: Python's own]",
    ),
    click.option(
        "--interval", metavar="N", type=int, help="Tokens between two evictions.  [default: 512]"
    ),
    click.option(
        "--seed", metavar="N", type=int, help="Draws other documents and numbers.  [default: 0]"
    ),
    click.option("--force", is_flag=True, help="Replace what is there."),
)
FAMILY_OPTION = click.option(
    "--family",
    metavar="F",
    help="What the NAMM sees; a wrong name lists them all.  [default: neighbours]",
)
PROBE_OPTION = click.option(
    "--probe",
    "probes",
    metavar="TEXT",
    multiple=True,
    help="A text that the NAMM asks with; may be repeated.  [default: its family's]",
)
_MODEL_OPTIONS = tuple(setting_option(each.name) for each in LOAD)
LENGTH_OPTION = "Tokens of the documents; several take turns."


def command(
    name: str, *options: Callable[[Any], Any]
) -> Callable[[Callable[..., None]], click.Command]:
    """A command with the model's options, `options` and those of documents; it gets what the user
    gave, as one dictionary.
    """
    out = click.option(
        "-o", "--out", metavar="FILE", help="The NAMM file to write.  [default: namm.safetensors]"
    )

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

        for option in reversed((out, *options, *SOURCE_OPTIONS, *_MODEL_OPTIONS)):
            given = option(given)
        return click.command(name, cls=SectionedCommand)(given)

    return decorate


def whole_number(text: str) -> int:
    """UsageError if it is none."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a whole number; several are written as 2048,4096"
        ) from None


def say(line: str) -> None:
    """To stderr: stdout has the result alone."""
    click.echo(line, err=True)


def minutes(began: float) -> str:
    """Time since then, by `time.perf_counter`."""
    seconds = time.perf_counter() - began
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
