"""Reads a long document with the whole cache, with a quarter and with a sixteenth of it, and asks
all the same questions.

The document is Python's own help pages with records between their sentences ("The access code of
the silver anchor is 48213."). No word of a record's name was in the bundled model's training, nor
was any of the prose. The questions are asked after the reading, so nothing could know what to keep.
Run it with `make demo`.
"""

import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from namm_llm import Runner

BUDGETS = (0.25, 0.0625)
RECORDS, SPACING = 64, 128  # a record about every SPACING tokens
QUESTIONS, REQUIRED = 12, 11  # the full cache must answer this many of them
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


def run(label: str, runner: Runner, text: str, asked: list[Record]) -> Run:
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
    answers = [document.ask(record.question).text.strip() for record in asked]
    answer_seconds = time.perf_counter() - began
    right = sum(record.answered_by(answer) for record, answer in zip(asked, answers, strict=True))
    return Run(label, answers, right, document.info(), read_seconds, answer_seconds)


def answers_table(asked: list[Record], runs: list[Run]) -> Table:
    table = Table(
        "question",
        "stated",
        *(run.label for run in runs),
        title="Answers (without the words that repeat the question)",
    )
    for i, record in enumerate(asked):
        cells = []
        for run in runs:
            mark = "[green]✓[/]" if record.answered_by(run.answers[i]) else "[red]✗[/]"
            cells.append(f"{mark} {escape(run.answers[i].removeprefix(record.beginning))}")
        table.add_row(record.question, record.value, *cells)
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


def main() -> int:
    console = Console()
    full = Runner.load(policy="full")
    managed = [Runner.load(budget=budget) for budget in BUDGETS]
    policy = managed[0].config.policy.name
    text, records = build(full)
    asked = random.Random(SEED).sample(records, QUESTIONS)
    shares = " and ".join(f"{budget:.2%}" for budget in BUDGETS)
    console.print(
        f"{full.model_id} reads {full.count_tokens(text):,} tokens with {len(records)} records "
        "in them,"
    )
    console.print(f"with the full cache, and with policy {policy} keeping {shares} of it.")
    console.print("Then all are asked the same questions, which nothing knew of while it read.")
    runs = [run("full cache", full, text, asked)]
    runs += [
        run(f"{policy}, {budget:g}", runner, text, asked)
        for budget, runner in zip(BUDGETS, managed, strict=True)
    ]
    console.print(answers_table(asked, runs))
    console.print(costs_table(runs))
    if runs[0].right < REQUIRED:
        console.print(
            f"The full cache got {runs[0].right} of {QUESTIONS} right; at least {REQUIRED} are "
            "required."
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
