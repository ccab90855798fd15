"""What joining costs: several documents read separately and asked together, against one that holds
them all, read in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import click

from namm_lab.reports.results import results_file
from namm_lab.rows import Row, machine
from namm_lab.tasks.hidden import Hidden
from namm_lab.tasks.registry import draw_samples
from namm_lab.tasks.sample import Sample
from namm_llm import Document, Runner


@click.command("joined")
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--length", default=1500, show_default=True, help="Tokens of each document.")
@click.option("--count", default=4, show_default=True, help="Documents that are asked together.")
@click.option("--questions", default=8, show_default=True, help="About each of them.")
@click.option("--groups", default=1, show_default=True, help="Of so many documents.")
@click.option("--split", default="test", show_default=True, help="validation: to choose by.")
@click.option("--budget", help="Of each document; everything is kept without one.")
@click.option(
    "--temperature",
    "temperatures",
    multiple=True,
    type=float,
    default=(1.0,),
    show_default=True,
    help="Of the attention to joined documents (arXiv 2502.05431); below 1 is sharper.",
)
@click.option("--texts", type=click.Path(exists=True, file_okay=False), help="See namm-llm eval.")
def joined(**settings: object) -> None:
    """Needles and facts of documents that were read separately and are asked together, against one
    reading of all of them, and how much sooner the first token comes; appended group by group.
    """
    for row in compare(**settings):  # type: ignore[arg-type]
        click.echo(
            f"group {row['group']}, {row['way']}: {row['score']:.3f} of {len(row['scores'])}, "
            f"first token after {row['first_token_seconds']:.2f} s"
        )


def compare(
    *,
    model: str,
    length: int,
    count: int,
    questions: int,
    groups: int,
    split: str,
    budget: str | None,
    temperatures: Sequence[float],
    texts: str | None,
) -> Iterator[Row]:
    """One row for each group and way: `one go`, and `joined` with each temperature."""
    runner, file = Runner.load(model), results_file("joined")
    samples = draw_samples(
        Hidden("hidden", questions),
        length,
        split=split,
        count=groups * count,
        count_tokens=lambda text: len(runner.encode(text)),
        texts=texts,
    )
    for group in range(groups):
        members = samples[group * count : (group + 1) * count]
        key = {"model": runner.model_id, "length": length, "count": count, "questions": questions}
        key |= {"split": split, "budget": budget, "group": group}
        keys = [key | {"way": way} for way in ("one go", *(f"joined, {t:g}" for t in temperatures))]
        if all(file.find(each) for each in keys):
            yield from (row for each in keys if (row := file.find(each)))
            continue
        for way, found in zip(keys, measure(runner, members, budget, temperatures), strict=True):
            file.add(way | found | machine())
            yield way | found


def measure(
    runner: Runner, samples: Sequence[Sample], budget: str | None, temperatures: Sequence[float]
) -> Iterator[Row]:
    """The way of one reading, which has the budget of all, then the joined ones."""
    own = runner.with_cache(budget=budget)
    whole = own if budget is None else runner.with_cache(budget=int(budget) * len(samples))
    texts = [sample.document for sample in samples]
    start = perf_counter()
    document = whole.read(texts)
    yield asked(document, samples, perf_counter() - start)
    parts = [own.read(text) for text in texts]
    for temperature in temperatures:
        start = perf_counter()
        document = own.combine(parts, "\n\n")  # as `read` joins them
        seconds = perf_counter() - start
        yield asked(sharpened(document, temperature), samples, seconds)


def asked(document: Document, samples: Sequence[Sample], seconds: float) -> Row:
    """seconds: until the document was there."""
    questions = [question for sample in samples for question in sample.questions]
    first = document.ask(questions[0].prompt, max_tokens=1).timings.first_token_seconds
    replies = document.ask_many([each.prompt for each in questions], max_tokens=32)
    scores = [each.score(reply.text) for each, reply in zip(questions, replies, strict=True)]
    score = sum(scores) / len(scores)
    return {"score": score, "scores": scores, "first_token_seconds": seconds + first}


def sharpened(document: Document, temperature: float) -> Document:
    """The same with keys divided by the temperature, those of the first tokens left out."""
    fork = document.fork()
    for layer in fork.cache.managed:
        sequence = layer.sequences[0]
        retained = sequence.retained
        first = retained.positions < document.session.format.head_tokens
        keys = retained.keys.where(first[:, None], retained.keys / temperature)
        layer.sequences[0] = replace(sequence, retained=replace(retained, keys=keys))
    return fork
