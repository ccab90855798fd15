"""`namm-llm ask DOCUMENT QUESTION...`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from namm_llm.cli.inputs import open_documents, piped_text, split_documents
from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import Start, answer

if TYPE_CHECKING:
    from namm_llm.config import SamplingParams
    from namm_llm.document import Document


class _Questions(click.Argument):
    """An argument of which only the question must be there."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return "'QUESTION...'"


@command("load", "run", "cache", "sampling", stop_loops=True)
@click.argument("document")
@click.argument(
    "questions", nargs=-1, required=True, metavar="[DOCUMENT...] QUESTION...", cls=_Questions
)
@click.option(
    "--no-keep", is_flag=True, help="Do not keep the memory of a long document that is read now."
)
def ask(document: str, questions: tuple[str, ...], no_keep: bool, settings: Settings) -> None:
    """Read DOCUMENT once and answer every QUESTION about it, or about several DOCUMENTs together.

    DOCUMENT is a file (text, md, html, pdf, docx), - for standard input, or what `namm-llm read`
    made: the name or ID of a memory, or a .namm file. A memory brings its own model and settings.
    Text that is piped in is put before each question.

    A document that was read before with the same settings is not read again. The memory of one of
    2 000 tokens or more is kept for that (`namm-llm documents`). Of several documents each is read
    and kept by itself, so that adding or leaving out one costs no reading.

    \b
    namm-llm ask handbook.pdf "Who signs travel requests?" --budget 0.25
    namm-llm ask handbook.pdf "List the limits." --json-schema limits.json
    namm-llm ask rules.md travel.md "Who signs travel requests?"
    """
    params = settings.params()
    given = "" if document == "-" else piped_text()
    more, questions = split_documents(questions)
    memory = open_documents([document, *more], settings, keep=not no_keep)
    for text in questions:
        start = about(memory, f"{given}\n\n{text}".strip(), params)
        result = answer(start, as_json=settings.as_json, stats=settings.stats, params=params)
        if result.finish_reason == "cancelled":
            raise KeyboardInterrupt


def about(memory: Document, question: str, params: SamplingParams) -> Start:
    """Begins the answer; a question is short, so there is no progress to report."""
    return lambda cancel, _: memory.stream(question, params, cancel=cancel)
