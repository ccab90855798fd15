"""`namm-llm bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.options import quiet_libraries, setting_option
from namm_llm.cli.progress import ProgressBar
from namm_llm.config import DEFAULT_MODEL
from namm_llm.errors import UsageError
from namm_llm.io import check_writable

if TYPE_CHECKING:
    from namm_lab.evaluate import Row

_LISTS = ("tasks", "lengths", "policies", "budgets", "peers", "batches", "quantizations", "kv_bits")
_NUMBERS = ("lengths", "batches")


@click.command("bench")
@setting_option("model")
@click.option("--shape", metavar="S", help="Random weights instead: tiny, 100m, 1b, 8b or 70b.")
@click.option("--layers", metavar="N", type=int, help="Only so many layers of the shape.")
@click.option("--tasks", metavar="A,B", help="What is measured.  [default: prefill,decode,memory]")
@click.option("--lengths", metavar="N,M", help="Tokens of a prompt.  [default: 2000]")
@click.option("--policies", metavar="A,B", help="Policies of ours.  [default: replay]")
@click.option("--budgets", metavar="A,B", help="As --budget elsewhere.  [default: 0.25]")
@click.option(
    "--peers",
    metavar="A,B",
    help="Who else is measured, see above; none: ours alone.  [default: whole,generate,fp8]",
)
@click.option("--batches", metavar="N,M", help="Prompts side by side.  [default: 1]")
@click.option(
    "--quantizations", metavar="A,B", help="none, nf4, fp4, int8 weights.  [default: none]"
)
@click.option(
    "--kv-bits",
    metavar="A,B",
    help="none, 8: our caches in 8-bit numbers; both are compared.  [default: none]",
)
@click.option(
    "--namm", metavar="FILE", help="NAMM file for the policy namm.  [default: random parameters]"
)
@setting_option("budget_scope")
@click.option(
    "--interval",
    metavar="N",
    type=int,
    help="Tokens between two evictions, and of a chunk.  [default: 512]",
)
@click.option("--decoded", metavar="N", type=int, help="Tokens decoded in one run.  [default: 64]")
@click.option(
    "--runs", metavar="N", type=int, help="Rounds in which every side has its turn.  [default: 5]"
)
@setting_option("device")
@setting_option("dtype")
@click.option(
    "-o",
    "--json",
    "json_file",
    metavar="FILE",
    help="Add rows as JSON lines; those in it are not measured again.",
)
@click.option("--again", is_flag=True, help="Measure them again; the new rows take their place.")
@click.option("--plot", metavar="FILE", help="Draw the rows (.png, .svg, .pdf).")
@click.option(
    "--plan", "only_plan", is_flag=True, help="Measure nothing: say what memory it takes."
)
def bench(
    json_file: str | None, plot: str | None, only_plan: bool, again: bool, **given: Any
) -> None:
    """Measure speed and memory against transformers, on the same weights, in the same run.

    Prompts are random tokens. Every side has its turn in every round; the table has medians, the
    rows have the spread. Memory is the peak of a process of its own. The machine should do nothing
    else.

    \b
    The reference: transformers' full cache with SDPA, read in chunks like ours.
    Peers: whole      the same, the whole prompt in one forward call
           generate   the same, through generate with its own prefill_chunk_size
           fp8        its QuantizedCache in 8 bits; quanto, hqq: in 4 bits, if they are installed
    """
    quiet_libraries()
    from namm_lab.bench import BenchFile, Benchmark, draw_rows, run_benchmark
    from namm_lab.evaluate import load_matplotlib

    plan = Benchmark(**_fields(given))
    if only_plan:
        _print_plan(plan)
        return
    file = BenchFile(json_file) if json_file is not None else None
    if plot is not None:
        load_matplotlib()
        check_writable(plot, ".png", ".svg", ".pdf")
    for line in plan.left_out():
        click.echo(line, err=True)
    with ProgressBar("Measuring", "rows") as bar:
        rows = run_benchmark(
            plan,
            file=file,
            again=again,
            on_row=lambda row, done, total: bar.update(done, total),
            on_note=bar.note,
        )
    _print(rows)
    if plot is not None:
        draw_rows(rows, plot)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as fields of a `Benchmark`."""
    fields = {name: value for name, value in given.items() if value is not None}
    for name in _LISTS:
        if name in fields:
            fields[name] = tuple(
                part for part in (part.strip() for part in fields[name].split(",")) if part
            )
    for name in _NUMBERS:
        if name in fields:
            fields[name] = tuple(_number(name, part) for part in fields[name])
    if "peers" in fields:
        fields["peers"] = () if fields["peers"] == ("none",) else tuple(map(_peer, fields["peers"]))
    if "model" in fields and "shape" in fields:
        raise UsageError(
            "--model is a real model and --shape one with random weights: give one of the two."
        )
    if "shape" not in fields:
        fields.setdefault("model", DEFAULT_MODEL)
    return fields


def _peer(name: str) -> str:
    return name if name.startswith("transformers") else f"transformers-{name}"


def _number(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"--{option} takes whole numbers, such as 2000,8000, not {text!r}."
        ) from None



def _print(rows: list[Row]) -> None:
    """One table for each task, quantisation, batch and length."""
    from itertools import groupby

    for _, found in groupby(
        rows, lambda row: (row["task"], row["quantization"], row["batch"], row["length"])
    ):
        _print_table(list(found))


def _print_table(found: list[Row]) -> None:
    from namm_lab.bench.picture import label_of
    from namm_llm.cli.output import size

    first = found[0]
    title = f"{first['task']}, {first['model']}, {first['length']} tokens"
    title += f" x {first['batch']}" if first["batch"] > 1 else ""
    title += f", {first['quantization'] or first['dtype']}, {first['machine']}"
    title += f", {first['samples']} rounds" if first["task"] != "memory" else ""
    cells: dict[str, Callable[[Row], str]] = {
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache": lambda row: size(row["nbytes"]),
        "full cache": lambda row: size(row["full_nbytes"]),
    }
    if first["task"] == "memory":
        cells["peak"] = lambda row: size(row["peak_nbytes"]) if row["peak_nbytes"] else "-"
        cells["before"] = lambda row: size(row["before_nbytes"]) if row["before_nbytes"] else "-"
        cells["of reference"] = lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "-"
    else:
        cells["seconds"] = lambda row: f"{row['seconds']:.2f}"
        cells["tokens/s"] = lambda row: f"{row['score']:.1f}"
        cells["times as fast"] = lambda row: f"{row['speedup']:.2f}" if row["speedup"] else "-"
        cells["min-max"] = lambda row: (
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}" if row["speedup"] else "-"
        )
        if first["task"] == "prefill":
            cells["policy"] = lambda row: f"{row['shares']['policy']:.0%}" if row["shares"] else "-"
    _table(
        title,
        "side",
        [(label_of(row), *(cell(row) for cell in cells.values())) for row in found],
        list(cells),
    )


def _print_plan(plan: Any) -> None:
    """What each setting takes, by arithmetic."""
    from namm_lab.bench.estimate import costs_of
    from namm_llm.cli.output import grouped, size

    columns = [
        "weights",
        "full cache",
        "kept",
        "kept keys, values",
        "state",
        "protect_recent",
        "cache",
        "weights + full",
        "weights + cache",
    ]
    for title, costs in costs_of(plan):
        lines = [
            (
                f"{grouped(cost.tokens)} {label}",
                size(cost.weights_nbytes),
                size(cost.full_nbytes),
                grouped(cost.kept),
                size(cost.kept_nbytes),
                size(cost.state_nbytes),
                size(cost.recent_nbytes),
                size(cost.cache_nbytes),
                size(cost.full_total_nbytes),
                size(cost.total_nbytes),
            )
            for label, cost in costs
        ]
        _table(title, "tokens", lines, columns)
    click.echo(
        "What a forward call needs for its own numbers, some hundred MB, comes on top.", err=True
    )


def _table(
    title: str, first: str, lines: Sequence[tuple[str, ...]], columns: Sequence[str]
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(first, title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # what goes into a file is not cut to the width of some terminal
    console.print(table)
