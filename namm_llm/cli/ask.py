"""`namm-llm ask FILE QUESTION...`."""

from __future__ import annotations

import click

from namm_llm.cli.inputs import open_document, piped_text, question
from namm_llm.cli.options import Settings, shared_options
from namm_llm.cli.output import answer


@click.command()
@click.argument("file")
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION...")
@shared_options()
def ask(file: str, questions: tuple[str, ...], settings: Settings) -> None:
    """Read FILE once and answer every QUESTION about it.

    FILE is a text file, a memory that `namm-llm read` saved (.namm), or - for standard input. Text that is piped in
    is put before each question.
    """
    params = settings.params()
    given = "" if file == "-" else piped_text()
    document = open_document(file, settings)
    for text in questions:
        start = question(document, f"{given}\n\n{text}".strip(), params)
        if answer(start, as_json=settings.as_json, stats=settings.stats).finish_reason == "cancelled":
            raise KeyboardInterrupt
