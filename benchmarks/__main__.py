"""`python -m benchmarks speed|memory|quality|forgotten`: measure, print a table, append the rows to `benchmarks/results/`."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from benchmarks import ablations, forgotten, memory, quality, report, rows, speed

BUDGET_BYTES, BUDGET_FLAT = 0.25, 2048


@click.group()
def main() -> None:
    """Measurements; each takes minutes and wants a machine that does nothing else."""


@main.command("speed")
@click.option("--shape", default="100m", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--policy", default="namm", show_default=True)
@click.option("--budget", default=0.25, show_default=True)
@click.option("--compete", default="head", show_default=True)
@click.option("--prefill", default=8000, show_default=True, help="Tokens of the timed prefill; 0: none.")
@click.option("--context", default=16000, show_default=True, help="Tokens read before the timed decoding; 0: none.")
@click.option("--tokens", default=64, show_default=True, help="Tokens decoded.")
@click.option("--runs", default=5, show_default=True)
def speed_command(**settings: object) -> None:
    """Prefill and decoding, ours over transformers' full cache (below 1 is faster)."""
    columns = ["measure", "shape", "dtype", "policy", "tokens", "ratio", "ratios", "seconds", "full_seconds"]
    _report("speed", speed.compare(**settings), columns)  # type: ignore[arg-type]


@main.command("memory")
def memory_command() -> None:
    """Bytes of the cache at budget 0.25 after 16 000 tokens, and peak process memory under a fixed budget of 2 048 tokens."""
    found = [memory.cache_bytes(shape, "bfloat16", "namm", BUDGET_BYTES, 16_000) for shape in ("tiny", "wide")]
    _report("memory", found, ["measure", "shape", "policy", "budget", "tokens", "nbytes", "full_nbytes", "ratio"])
    flat = memory.peak_process_bytes("tiny", "bfloat16", "namm", BUDGET_FLAT, (8000, 32_000))
    _report("memory", flat, ["measure", "shape", "policy", "budget", "tokens", "nbytes", "ratio"])


@main.command("quality")
@click.option("--model", default="namm-tiny", show_default=True)
@click.option("--task", "tasks", multiple=True, default=("fact",), show_default=True, help="See namm-llm eval.")
@click.option("--length", "lengths", multiple=True, type=int, default=(8000,), show_default=True, help="Tokens of a document.")
@click.option("--policy", "policies", multiple=True, help="May be repeated; all, if left out.")
@click.option("--budget", "budgets", multiple=True, default=("0.5", "0.25", "0.125"), show_default=True)
@click.option("--compete", "competes", multiple=True, default=("own",), show_default=True, help="own: as the policy does in the runner.")
@click.option("--documents", default=4, show_default=True)
@click.option("--questions", default=16, show_default=True, help="Asked of each document, after it has been read.")
@click.option("--namm", "namms", multiple=True, help="NAMM file, for the policy namm.")
def quality_command(**settings: object) -> None:
    """Scores after eviction, policy by policy: `namm-llm eval`, its rows kept with the machine; the questions come after the reading."""
    columns = ["task", "length", "policy", "budget", "compete", "samples", "score", "full_score", "kept_fraction", "nbytes", "full_nbytes"]
    _report("quality", quality.compare(**settings), columns)  # type: ignore[arg-type]


@main.command("ablations")
@click.option(
    "--folder", default="ablations", show_default=True, help="Where the distilled NAMMs lie; those that are there are not made again."
)
@click.option("--model", default="namm-tiny", show_default=True)
@click.option("--name", "names", multiple=True, help="May be repeated; all, if left out.")
@click.option("--length", default=4000, show_default=True, help="Tokens of a document.")
@click.option("--budget", "budgets", multiple=True, default=("0.25", "0.125", "0.0625", "0.03125"), show_default=True)
@click.option("--documents", default=4, show_default=True)
@click.option("--questions", default=32, show_default=True, help="Asked of each document, after it has been read.")
def ablations_command(**settings: object) -> None:
    """What each part of a NAMM is worth: forms that are distilled anew, and settings of the default one."""
    columns = ["ablation", "compete", "budget", "samples", "score", "full_score", "kept_fraction", "distil_seconds"]
    _report("ablations", ablations.compare(**settings), columns)  # type: ignore[arg-type]


@main.command("forgotten")
@click.option("--model", default="namm-tiny", show_default=True)
@click.option("--policy", "policies", multiple=True, default=("reread", "keydiff", "streaming_llm"), show_default=True)
@click.option("--budget", "budgets", multiple=True, default=("0.25", "0.0625"), show_default=True)
@click.option("--length", default=4000, show_default=True, help="Tokens of a document.")
@click.option("--documents", default=4, show_default=True, help="Of each kind of text.")
def forgotten_command(**settings: object) -> None:
    """Share of the tokens kept, by kind and by layer, in prose with facts and in code; the model's own policy is added."""
    found = forgotten.compare(**settings)  # type: ignore[arg-type]
    beside = forgotten.side_by_side(found)
    _print(beside, list(beside[0]))
    click.echo(f"added to {rows.append('forgotten', found)}")


@main.command("report")
def report_command() -> None:
    """Write the tables of benchmarks/README.md from the committed rows."""
    click.echo(report.write())


def _report(name: str, found: list[rows.Row], columns: list[str]) -> None:
    _print(found, columns)
    click.echo(f"added to {rows.append(name, found)}")


def _print(found: list[rows.Row], columns: list[str]) -> None:
    table = Table(*columns)
    for row in found:
        table.add_row(*(f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
