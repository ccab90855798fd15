"""`namm-llm summarize FILE...`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.inputs import document_file
from namm_llm.cli.options import Settings, command
from namm_llm.cli.output import LOOPED, counted, grouped, interruptible, statistics, tell, tell_cut
from namm_llm.cli.progress import ProgressBar
from namm_llm.errors import DocumentError, UsageError
from namm_llm.io import check_writable, write_text

if TYPE_CHECKING:
    from namm_llm.document import Document
    from namm_llm.runner import Runner
    from namm_llm.summaries import Summary, SummaryStream, WorkFile


@command("load", "run", "cache", "sampling", max_tokens="enough for --length")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--method", metavar="M", help="auto, one-pass, map-reduce or refine.  [default: auto]"
)
@click.option(
    "--length", metavar="L", help="short, medium, long, or how many sentences.  [default: medium]"
)
@click.option("--focus", metavar="TEXT", help="What the summary is to be about.")
@click.option("--together", is_flag=True, help="One summary of all files, not one of each.")
@click.option(
    "--part-tokens",
    metavar="N",
    type=int,
    help="Most tokens of a part of a long text.  [default: 8192]",
)
@click.option(
    "--work",
    metavar="FILE",
    help="Keeps what is finished until all is.  [default: a file in your data folder]",
)
@click.option(
    "-o", "--output", metavar="FILE", help="Write to FILE, all or nothing, and not to stdout."
)
def summarize(
    files: tuple[str, ...],
    together: bool,
    work: str | None,
    output: str | None,
    settings: Settings,
    **options: Any,
) -> None:
    """Summarize every FILE through the evicting cache.

    FILE is a text file, a memory that `namm-llm read` saved, or - for standard input. A text that
    fits into the positions that the model was trained on is read in one pass. A longer one is
    summarized in parts: map-reduce takes each part on its own, and then their summaries together;
    refine takes one part after the other, with the summary of what came before it. stderr says when
    and how.

    A long summary that was interrupted goes on where it stopped when the same command is given
    again.

    \b
    namm-llm summarize minutes.docx --length short --focus "decisions"
    namm-llm summarize book.pdf --budget 0.25 -o summary.txt
    """
    given = {name: value for name, value in options.items() if value is not None}
    most = check(given, settings)
    target = check_writable(output) if output is not None else None
    sources = sources_of(files, together, settings)
    job = Job(sources, given, settings, work, most, prints=target is None)
    shown = [job.summary(source) for source in sources]
    if target is not None:
        write_text(target, "".join(shown), DocumentError)
    job.finish()


def check(options: dict[str, Any], settings: Settings) -> int:
    """Most tokens of an answer; wrong options are refused before anything is read."""
    from namm_llm.summaries import check_options

    request = check_options(**options)
    settings.params()
    return int(settings.sampling.get("max_tokens", request.max_tokens))


@dataclass(frozen=True)
class Source:
    """What one summary is made of."""

    names: tuple[str, ...]
    """Of the files."""
    content: str | Document
    """A text, or a memory of one."""

    @property
    def title(self) -> str:
        """For messages and headings."""
        return ", ".join(self.names)


def sources_of(files: Sequence[str], together: bool, settings: Settings) -> list[Source]:
    """What is to be summarized; a file that cannot be read is found before anything is computed."""
    from namm_llm.cli.memories import open_saved, saved_path
    from namm_llm.documents import join_texts

    if files.count("-") > 1:
        raise UsageError("standard input can be read once; name - once.")
    saved = [saved_path(file) for file in files]
    if together and any(saved):
        raise UsageError(
            "a memory holds no text that could be put together with others; leave out --together, "
            "or name the text files."
        )
    if together:
        return [Source(tuple(files), join_texts([document_file(file) for file in files]))]
    texts = {
        file: document_file(file).text
        for file, path in zip(files, saved, strict=True)
        if path is None
    }
    return [
        Source((file,), texts[file] if path is None else open_saved(path, file, settings))
        for file, path in zip(files, saved, strict=True)
    ]


class Job:
    """The summaries of one call, one after the other, with the work file that they share."""

    def __init__(
        self,
        sources: Sequence[Source],
        options: dict[str, Any],
        settings: Settings,
        work: str | None,
        max_tokens: int,
        *,
        prints: bool,
    ) -> None:
        from namm_llm.summaries import WorkFile, work_path

        options = {**options, **settings.sampling}
        self._options = options
        self._max_tokens = max_tokens
        self._settings = settings
        self._has_several = len(sources) > 1
        self._prints = prints
        self._said = list[str]()
        texts = [source.content for source in sources if isinstance(source.content, str)]
        self._runner: Runner | None = settings.load() if texts else None
        self._work: Path | WorkFile | None = None
        if self._runner is not None:
            self._work = Path(work) if work else work_path(self._runner, texts, options)
            if self._has_several:
                self._work = WorkFile(self._work)
                self._tell_found(self._work)

    def summary(self, source: Source) -> str:
        """Makes one summary, printed while it is written; gives back what is to be printed."""
        from namm_llm.summaries import stream_summary

        self._said = []
        with interruptible() as cancel, ProgressBar() as bar:
            stream = stream_summary(
                source.content,
                self._runner,
                work=self._work,
                cancel=cancel,
                on_progress=bar.update,
                **self._options,
            )
            self._tell_plan(source, stream)
            for piece in stream:
                bar.stop()
                self._say_piece(source, piece.text)
        summary = stream.result
        if summary.finish_reason == "cancelled":
            self._give_up(stream)
        self._end(source, summary)
        return "".join(self._said)

    def finish(self) -> None:
        """Everything is printed or written: what was kept on the way goes."""
        if self._work is not None and not isinstance(self._work, Path):
            self._work.remove()

    def _say_piece(self, source: Source, text: str) -> None:
        if not self._settings.as_json:
            is_first = self._has_several and not self._said
            self._say(f"{source.title}:\n{text}" if is_first else text)

    def _end(self, source: Source, summary: Summary) -> None:
        """What comes behind a summary: its JSON object or the end of its line, and the rest on
        stderr.
        """
        if self._settings.as_json:
            about = {"files": source.names, **summary.to_dict()}
            self._say(json.dumps(about, ensure_ascii=False) + "\n")
        else:
            self._say("\n\n" if self._has_several else "\n")
        if not self._settings.as_json:
            self._tell_end(summary)
        if self._settings.stats:
            parts = f"{counted(len(summary.parts), 'part')}, " if summary.parts else ""
            done = f"{summary.method}, {parts}{counted(summary.calls, 'answer')}"
            tell(f"{statistics(summary)} · {done}")

    def _tell_end(self, summary: Summary) -> None:
        """Says that the summary, or an answer on the way to it, is not whole."""
        more = "--max-tokens or a longer --length"
        if summary.finish_reason == "length":
            tell_cut(summary.usage.output_tokens, self._max_tokens, more)
        elif summary.cut_calls:
            cut = f"{summary.cut_calls} of {summary.calls} answers on the way"
            tell(f"({cut} cut at {grouped(self._max_tokens)} tokens; {more} allows more)")
        if summary.looped:
            tell(LOOPED)

    def _say(self, text: str) -> None:
        self._said.append(text)
        if self._prints:
            click.echo(text, nl=False)

    def _tell_plan(self, source: Source, stream: SummaryStream) -> None:
        plan = stream.plan
        if stream.work is not None and not self._has_several:
            self._tell_found(stream.work)
        if len(plan.spans) > 1:
            assert self._runner is not None
            name, positions = self._runner.model_id, self._runner.context_window
            why = f", too many for one pass of {name} ({positions} positions)"
            why = "" if self._options.get("method", "auto") != "auto" else why
            parts = counted(len(plan.spans), "part")
            tell(f"{source.title}: {grouped(plan.tokens)} tokens{why}: {plan.method} in {parts}.")

    def _tell_found(self, work: WorkFile) -> None:
        if len(work):
            held = counted(len(work), "answer")
            tell(f"Going on from {work.path}, which holds {held}.")

    def _give_up(self, stream: SummaryStream) -> None:
        """Interrupted: the line that has begun ends, and the user learns what is left."""
        if self._prints and self._said:
            click.echo("")
        if stream.work is not None and len(stream.work):
            tell(
                f"{counted(len(stream.work), 'answer')} finished, in {stream.work.path}: "
                "the same command goes on from there."
            )
        raise KeyboardInterrupt
