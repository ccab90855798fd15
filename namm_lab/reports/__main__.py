"""`python -m namm_lab.reports NAME`: measure, print a table, add the rows to `benchmarks/results/`;
`report` makes the pages of them.
"""

from __future__ import annotations

import click
import torch
from rich.console import Console
from rich.table import Table

from namm_lab.reports import ablations, curves, forgotten, gpu, labelled, quality, reopen, report
from namm_lab.reports.asked import asked
from namm_lab.reports.beyond import beyond
from namm_lab.reports.joined import joined
from namm_lab.reports.peers.command import peers
from namm_lab.reports.prompts import prompts
from namm_lab.reports.results import add_rows, results_file
from namm_lab.reports.speed import speed
from namm_lab.rows import Row


@click.group()
def main() -> None:
    """Measurements; each takes minutes and wants a machine that does nothing else."""


main.add_command(asked)
main.add_command(beyond)
main.add_command(joined)
main.add_command(speed)
main.add_command(peers)
main.add_command(prompts)


@main.command("quality")
@click.option("--model", default="namm-tiny", show_default=True)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    default=("fact",),
    show_default=True,
    help="See namm-llm eval.",
)
@click.option(
    "--length",
    "lengths",
    multiple=True,
    type=int,
    default=(8000,),
    show_default=True,
    help="Tokens of a document.",
)
@click.option("--policy", "policies", multiple=True, help="May be repeated; all, if left out.")
@click.option(
    "--budget", "budgets", multiple=True, default=("0.5", "0.25", "0.125"), show_default=True
)
@click.option(
    "--budget-scope",
    "scopes",
    multiple=True,
    default=("own",),
    show_default=True,
    help="own: as the policy does in the runner.",
)
@click.option("--documents", default=4, show_default=True)
@click.option(
    "--questions",
    default=16,
    show_default=True,
    help="Asked of each document, after it has been read.",
)
@click.option("--namm", "namms", multiple=True, help="NAMM file, for the policy namm.")
def quality_command(**settings: object) -> None:
    """Scores after eviction, policy by policy: `namm-llm eval`, its rows kept with the machine; the
    questions come after the reading.
    """
    columns = [
        "task",
        "length",
        "policy",
        "budget",
        "budget_scope",
        "samples",
        "score",
        "full_score",
        "kept_fraction",
        "nbytes",
        "full_nbytes",
    ]
    _report("quality", quality.compare(**settings), columns)  # type: ignore[arg-type]


@main.command("ablations")
@click.option(
    "--folder",
    default="ablations",
    show_default=True,
    help="Where NAMMs and rows lie; a run that was stopped goes on from there.",
)
@click.option("--model", default="namm-tiny", show_default=True)
@click.option(
    "--name",
    "names",
    multiple=True,
    type=click.Choice(ablations.NAMES),
    metavar="NAME",
    help="May be repeated; all, if left out.",
)
@click.option("--length", default=4000, show_default=True, help="Tokens of a document.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    default=("0.25", "0.125", "0.0625", "0.03125"),
    show_default=True,
)
@click.option("--documents", default=4, show_default=True)
@click.option(
    "--questions",
    default=16,
    show_default=True,
    help="Asked of each document, after it has been read.",
)
@click.option(
    "--train-documents",
    type=int,
    help="Documents to distil from; as many as train distil takes, if left out.",
)
@click.option("--again", is_flag=True, help="Distil and measure anew what is there.")
def ablations_command(**settings: object) -> None:
    """What each part of a NAMM is worth: forms that are distilled anew, and settings of the default
    one; appended row by row.
    """

    def keep(row: Row) -> None:
        click.echo(
            f"{row['ablation']}, {row['budget'] or 'threshold'}: {row['score']:.3f} of "
            f"{row['full_score']:.3f}",
            err=True,
        )
        if settings["again"] or results_file("ablations").find(row) is None:
            add_rows("ablations", [row])

    beside = ablations.side_by_side(ablations.compare(on_row=keep, **settings))  # type: ignore[arg-type]
    _print(beside, list(beside[0]))
    click.echo(f"added to {results_file('ablations').path}")


@main.command("curves")
@click.option(
    "--folder",
    default="curves",
    show_default=True,
    help="Where NAMMs and logs lie; a run that was stopped goes on from there.",
)
@click.option("--model", default="namm-tiny", show_default=True)
@click.option("--tasks", default="fact,keys", show_default=True)
@click.option("--length", default=3072, show_default=True, help="Tokens of a document.")
@click.option("--documents", default=16, show_default=True, help="Documents to distil from.")
@click.option(
    "--generations",
    default=10,
    show_default=True,
    help="From the distilled NAMM; from zeros, as many as fit into the same time.",
)
@click.option("--every", default=2, show_default=True, help="Generations between two points.")
@click.option("--population", default=12, show_default=True)
@click.option(
    "--questions", default=16, show_default=True, help="About a document of an evolution."
)
@click.option("--validation", default=4, show_default=True, help="Documents of each task.")
@click.option("--budgets", default="0.0625,0.03125", show_default=True)
def curves_command(**settings: object) -> None:
    """What a minute of training buys: distilling, evolving from that, evolving from zeros; appended
    point by point, half an hour.
    """

    def keep(row: Row) -> None:
        click.echo(
            f"{row['curve']} {row['step']}: {row['likelihood']:.3f} after "
            f"{row['cpu_seconds']:.0f} CPU seconds",
            err=True,
        )
        if results_file("curves").find(row) is None:
            add_rows("curves", [row])

    _print(curves.shown(curves.compare(on_row=keep, **settings)), list(curves.COLUMNS))  # type: ignore[arg-type]
    click.echo(
        f"added to {results_file('curves').path}; python -m namm_lab.reports report draws them"
    )


@main.command("forgotten")
@click.option("--model", default="namm-tiny", show_default=True)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("replay", "keydiff", "streaming_llm"),
    show_default=True,
)
@click.option("--budget", "budgets", multiple=True, default=("0.25", "0.0625"), show_default=True)
@click.option("--length", default=4000, show_default=True, help="Tokens of a document.")
@click.option("--documents", default=4, show_default=True, help="Of each kind of text.")
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Choice(list(labelled.TEXTS)),
    default=("prose", "code"),
    show_default=True,
    help="May be repeated.",
)
@click.option("--folder", help="Of texts, instead of Python's own.")
def forgotten_command(**settings: object) -> None:
    """Share of the tokens kept, by kind and by layer; the model's own policy is added."""
    found = forgotten.compare(**settings)  # type: ignore[arg-type]
    beside = forgotten.side_by_side(found)
    _print(beside, list(beside[0]))
    if forgotten.is_deep(found, model := found[0]["model"]):
        layers = forgotten.by_layer(found, model)
        _print(layers, list(layers[0]))
    click.echo(f"added to {add_rows('forgotten', found)}")


@main.command("gpu")
@click.option("--policy", default="replay", show_default=True)
@click.option("--budget", default=0.25, show_default=True)
@click.option(
    "--dry", is_flag=True, help="Tiny sizes on the CPU, to see that it runs; nothing is kept."
)
def gpu_command(dry: bool, **settings: object) -> None:
    """On a GPU: the spectrogram's kernel, an 8B in nf4 over 128 000 tokens, decoding against
    DynamicCache (below 1 is faster).
    """
    if not dry and not torch.cuda.is_available():
        raise click.ClickException("this needs a CUDA device; --dry runs tiny sizes on the CPU")
    found = gpu.compare(dry=dry, **settings)  # type: ignore[arg-type]
    for row in found:
        click.echo(
            ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in row.items()
            )
        )
    if not dry:
        click.echo(f"added to {add_rows('gpu', found)}")


@main.command("reopen")
@click.option("--model", default="namm-tiny", show_default=True)
@click.option("--length", default=16_000, show_default=True, help="Tokens of the document.")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--runs", default=3, show_default=True)
def reopen_command(**settings: object) -> None:
    """How much sooner the first token comes from a saved memory than from reading the document
    again, and how large the file is.
    """
    columns = [
        "measure",
        "model",
        "policy",
        "tokens",
        "ratio",
        "cpu_ratio",
        "seconds",
        "read_seconds",
        "file_ratio",
    ]
    _report("reopen", reopen.compare(**settings), columns)  # type: ignore[arg-type]


@main.command("report")
def report_command() -> None:
    """Write the tables and plots of benchmarks/README.md and docs/performance.md from the committed
    rows.
    """
    for path in report.write():
        click.echo(path)


def _report(name: str, found: list[Row], columns: list[str]) -> None:
    _print(found, columns)
    click.echo(f"added to {add_rows(name, found)}")


def _print(found: list[Row], columns: list[str]) -> None:
    table = Table(*columns)
    for row in found:
        table.add_row(
            *(f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns)
        )
    Console().print(table)


if __name__ == "__main__":
    main()
