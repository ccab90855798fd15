"""What is still answered from texts of any length: needles and facts at random depths, document by
document, so that a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from namm_lab.evaluate.reader import read_agnostic
from namm_lab.reports.results import results_file
from namm_lab.rows import Row, machine
from namm_lab.tasks.hidden import Hidden, depth_of, is_needle
from namm_lab.tasks.registry import draw_samples
from namm_llm import Runner

THIRDS = ("first", "middle", "last")


@click.command("asked")
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--policy", "policies", multiple=True, default=("full", "replay"), show_default=True)
@click.option("--budget", default="2048", show_default=True, help="Of all policies but full.")
@click.option(
    "--length",
    "lengths",
    multiple=True,
    type=int,
    default=(4000, 16_000, 32_000),
    show_default=True,
    help="Tokens of a document; full reads those that fit.",
)
@click.option("--documents", default=4, show_default=True, help="Of each length.")
@click.option("--questions", default=16, show_default=True, help="About each of them.")
@click.option("--texts", type=click.Path(exists=True, file_okay=False), help="See namm-llm eval.")
def asked(**settings: object) -> None:
    """Needles and facts at random depths of documents of any length, asked after the reading;
    appended document by document.
    """
    rows: dict[tuple[str, int], list[Row]] = {}
    for row in compare(**settings):  # type: ignore[arg-type]
        rows.setdefault((row["policy"], row["length"]), []).append(row)
        click.echo(f"{row['policy']}, {row['length']} tokens: {shown([row])}", err=True)
    for (policy, length), found in rows.items():
        click.echo(f"{policy}, {length} tokens, {len(found)} documents: {shown(found)}")


def compare(
    *,
    model: str,
    policies: Sequence[str],
    budget: str,
    lengths: Sequence[int],
    documents: int,
    questions: int,
    texts: str | None,
) -> Iterator[Row]:
    """One row for each document; the same documents for all policies."""
    runner, file = Runner.load(model), results_file("asked")
    limit = runner.context_window
    for length in lengths:
        samples = draw_samples(
            Hidden("hidden", questions),
            length,
            count=documents,
            count_tokens=lambda text: len(runner.encode(text)),
            texts=texts,
        )
        for policy in policies:
            if policy == "full" and limit is not None and length >= limit:
                continue
            setting = None if policy == "full" else budget
            own = runner.with_cache(policy, budget=setting)
            for number, sample in enumerate(samples):
                key = {"model": runner.model_id, "policy": policy, "budget": setting}
                key |= {"length": length, "questions": questions, "document": number}
                row = file.find(key)
                if row is None:
                    reading = read_agnostic(own, sample)
                    row = key | {
                        "scores": reading.scores,
                        "needles": [is_needle(each) for each in sample.questions],
                        "depths": [round(depth_of(sample, each), 4) for each in sample.questions],
                        "nbytes": reading.stats[0].nbytes,
                    }
                    file.add(row | machine())
                yield row


def shown(rows: Sequence[Row]) -> str:
    """Mean scores of needles, of facts, and by thirds of the document."""
    needles, facts = list[float](), list[float]()
    depths: dict[str, list[float]] = {third: [] for third in THIRDS}
    for row in rows:
        for needle, depth, score in zip(row["needles"], row["depths"], row["scores"], strict=True):
            (needles if needle else facts).append(score)
            depths[THIRDS[min(int(depth * 3), 2)]].append(score)
    parts = {"needles": needles, "facts": facts} | depths
    return ", ".join(
        f"{name} {sum(scores) / len(scores):.3f} of {len(scores)}"
        for name, scores in parts.items()
        if scores
    )
