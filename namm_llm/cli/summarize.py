"""`namm-llm summarize FILE`."""

from __future__ import annotations

import click

from namm_llm.cli.inputs import open_document, question
from namm_llm.cli.options import Settings, shared_options
from namm_llm.cli.output import answer

REQUEST = "Summarize the text above in a few sentences."


@click.command()
@click.argument("file")
@shared_options()
def summarize(file: str, settings: Settings) -> None:
    """Read FILE once through the evicting cache and summarize it.

    FILE is a text file, a memory that `namm-llm read` saved (.namm), or - for standard input. It must fit into the
    positions that the model was trained on.
    """
    params = settings.params()
    document = open_document(file, settings)
    start = question(document, REQUEST, params)
    if answer(start, as_json=settings.as_json, stats=settings.stats).finish_reason == "cancelled":
        raise KeyboardInterrupt
