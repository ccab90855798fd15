"""`python -m namm_lab.reports peers`: kvpress, transformers and ours in turn, at the same kept
fraction; see `make bench-kvpress`.
"""

from __future__ import annotations

from typing import Any

import click

from namm_lab.reports.peers.comparison import compare, plan_of
from namm_lab.reports.peers.contender import PRESSES
from namm_lab.reports.results import RESULTS
from namm_llm import NammError


@click.command("peers")
@click.option(
    "--shape",
    default="100m",
    show_default=True,
    help="Random weights, saved once and loaded by all.",
)
@click.option("--lengths", default="8000", show_default=True)
@click.option("--budget", default="0.25", show_default=True, help="Share of the tokens that stays.")
@click.option("--policies", default="knorm,replay", show_default=True, help="Ours.")
@click.option("--namm", help="NAMM file for the policy namm; random parameters, if left out.")
@click.option("--presses", default=",".join(PRESSES), show_default=True)
@click.option("--tasks", default="memory,prefill", show_default=True)
@click.option("--runs", default=5, show_default=True)
@click.option("--decoded", default=64, show_default=True)
@click.option(
    "--file", default="peers", show_default=True, help="Rows go to benchmarks/results/NAME.jsonl."
)
@click.option("--again", is_flag=True, help="Measure anew what is in the file.")
def peers(shape: str, presses: str, file: str, again: bool, **given: Any) -> None:
    """Speed and peak memory beside kvpress, which reads the whole prompt in one forward call and
    evicts once, at its end.
    """
    try:
        rows = compare(
            plan_of(shape, **_settings(**given)),
            tuple(presses.split(",")),
            RESULTS / f"{file}.jsonl",
            _note,
            again=again,
        )
    except NammError as error:
        raise click.ClickException(str(error)) from error
    for row in rows:
        parts = ("task", "length", "contender", "policy", "budget")
        name = " ".join(str(row[part] or "") for part in parts)
        memory = row["task"] == "memory"
        figure = f"{row['peak_nbytes'] / 1e9:.2f} GB" if memory else f"{row['seconds']:.2f} s"
        click.echo(f"{name}: {figure}")
    click.echo(f"added to {RESULTS.name}/{file}.jsonl")


def _settings(
    lengths: str, budget: str, policies: str, tasks: str, **numbers: Any
) -> dict[str, Any]:
    """The options as fields of a `Benchmark`."""
    return {
        "lengths": tuple(int(length) for length in lengths.split(",")),
        "budgets": (budget,),
        "policies": tuple(policies.split(",")),
        "tasks": tuple(tasks.split(",")),
        **numbers,
    }


def _note(text: str) -> None:
    click.echo(text, err=True)
