"""`namm-llm bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.values import names, numbers, print_table
from namm_llm import UsageError
from namm_llm.cli.options import default_model, quiet_libraries, setting_option
from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_lab.bench import Benchmark
    from namm_lab.bench.cost import Cost
    from namm_lab.rows import Row

_LISTS = ("tasks", "policies", "budgets", "peers", "texts", "quantizations", "kv_bits")
_NUMBERS = ("lengths", "batches")
Columns = dict[str, Callable[[Any], str]]


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
@click.option(
    "--texts",
    metavar="A,B",
    help="What is read: documentation or code (Python's), or files.  [default: random tokens]",
)
@click.option(
    "--needles",
    metavar="N",
    type=int,
    help="Hide N numbers in each text, one in each prompt, and ask for them, instead.",
)
@click.option(
    "--peer-python",
    "pythons",
    metavar="PEER=PYTHON",
    multiple=True,
    help="The Python that has a peer's package.  [default: .venv-PEER/bin/python]",
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
    "--runs",
    metavar="N",
    type=int,
    help="Rounds in which every contender has its turn.  [default: 5]",
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
    json_file: str | None,
    plot: str | None,
    only_plan: bool,
    again: bool,
    pythons: tuple[str, ...],
    **given: Any,
) -> None:
    """Measure speed and memory against transformers, on the same weights, in the same run.

    Prompts are random tokens, or texts. Every contender has its turn in every round; the table has
    medians, the rows have the spread. Memory is the peak of a process of its own. The machine
    should do nothing else.

    \b
    The reference: transformers' full cache with SDPA, read in chunks like ours. Peers:
      whole      the same, the whole prompt in one forward call
      generate   the same, through generate with its own prefill_chunk_size
      fp8        its QuantizedCache in 8 bits; quanto, hqq: in 4 bits, if they are installed
    Of a GGUF file, each in a process of its own (make bench-peers installs them):
      llama.cpp, openvino (also with its own eviction at each fixed budget), transformers

    \b
    Examples:
      namm-llm bench --shape 100m --lengths 2000,8000
      namm-llm bench --shape 8b --dtype bfloat16 --lengths 131072 --budgets 2048 --plan
      namm-llm bench --model FILE.gguf --peers llama.cpp,openvino,transformers --texts BOOK.txt
    """
    quiet_libraries()
    from namm_lab.bench import KEY, Benchmark, draw_rows, run_benchmark
    from namm_lab.bench.peers.opening import opened_peers
    from namm_lab.rows import RowFile
    from namm_llm.inspect.figure import check_figure

    plan = Benchmark(**_fields(given))
    if only_plan:
        _print_plan(plan)
        return
    file = RowFile(json_file, KEY) if json_file is not None else None
    if plot is not None:
        check_figure(plot)
    for line in plan.left_out():
        click.echo(line, err=True)
    with (
        opened_peers(plan, _pythons(pythons), _say) as others,
        ProgressBar("Measuring", "rows") as bar,
    ):
        rows = run_benchmark(
            plan,
            file=file,
            again=again,
            on_row=lambda row, done, total: bar.update(done, total),
            on_note=bar.note,
            others=others,
        )
    _print(rows)
    if plot is not None:
        draw_rows(rows, plot)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as fields of a `Benchmark`."""
    fields = {name: value for name, value in given.items() if value is not None}
    for name in _LISTS:
        if name in fields:
            fields[name] = names(fields[name])
    for name in _NUMBERS:
        if name in fields:
            fields[name] = numbers(name, fields[name])
    if "peers" in fields:
        fields["peers"] = () if fields["peers"] == ("none",) else tuple(map(_peer, fields["peers"]))
    if "model" in fields and "shape" in fields:
        raise UsageError(
            "--model is a real model and --shape one with random weights: give one of the two."
        )
    if "needles" in fields:
        fields.setdefault("tasks", ("needles",))
    if "shape" not in fields:
        fields.setdefault("model", default_model())
    return fields


def _peer(name: str) -> str:
    outside = name.startswith("transformers") or name in ("llama.cpp", "openvino")
    return name if outside else f"transformers-{name}"


def _pythons(given: Sequence[str]) -> dict[str, str]:
    """Each peer's Python, of `PEER=PYTHON`. UsageError for what has no `=`."""
    for each in given:
        if "=" not in each:
            raise UsageError(
                f"--peer-python takes PEER=PYTHON, such as openvino=PYTHON, not {each!r}."
            )
    return dict(each.split("=", 1) for each in given)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print(rows: list[Row]) -> None:
    """One table for each task, quantisation, batch and length."""
    from itertools import groupby

    fields = ("task", "quantization", "batch", "length", "text")
    for _, cell in groupby(rows, lambda row: [row[name] for name in fields]):
        _print_cell(list(cell))


def _print_cell(cell: list[Row]) -> None:
    from namm_lab.bench.picture import label_of

    first = cell[0]
    parts = (
        f"{first['task']}, {first['model']}, {first['length']} tokens",
        f" x {first['batch']}" if first["batch"] > 1 else "",
        f", {first['quantization'] or first['dtype']}, {first['machine']}",
        f", {first['text']}" if first["text"] else "",
        f", {first['samples']} rounds" if first["task"] in ("prefill", "decode") else "",
    )
    columns = {"contender": label_of, **_columns(first["task"])}
    lines = [[value(row) for value in columns.values()] for row in cell]
    print_table("".join(parts), list(columns), lines, width=160)


def _columns(task: str) -> Columns:
    """What the table of a task shows of a row."""
    from namm_llm.cli.output import size

    shared: Columns = {
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache": lambda row: size(row["nbytes"]) if row["nbytes"] else "-",
        "full cache": lambda row: size(row["full_nbytes"]) if row["full_nbytes"] else "-",
    }
    if task == "memory":
        return shared | {
            "peak": lambda row: size(row["peak_nbytes"]) if row["peak_nbytes"] else "-",
            "whole process": lambda row: (
                size(row["process_nbytes"]) if row.get("process_nbytes") else "-"
            ),
            "before": lambda row: size(row["before_nbytes"]) if row["before_nbytes"] else "-",
            "of reference": lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "-",
        }
    if task == "needles":
        return shared | {
            "answered": lambda row: f"{sum(row['answers'])} of {row['samples']}",
            "seconds": lambda row: f"{row['seconds']:.2f}",
        }
    timed: Columns = shared | {
        "seconds": lambda row: f"{row['seconds']:.2f}",
        "tokens/s": lambda row: f"{row['score']:.1f}",
        "times as fast": lambda row: f"{row['speedup']:.2f}" if row["speedup"] else "-",
        "min-max": lambda row: (
            f"{row['speedup_low']:.2f}-{row['speedup_high']:.2f}" if row["speedup"] else "-"
        ),
    }
    if task == "prefill":
        timed["policy"] = lambda row: f"{row['shares']['policy']:.0%}" if row["shares"] else "-"
    return timed


def _print_plan(plan: Benchmark) -> None:
    """What each setting takes, by arithmetic."""
    from namm_lab.bench.estimate import beyond_positions, costs_of
    from namm_llm.cli.output import grouped, size

    columns: dict[str, Callable[[Cost], str]] = {
        "weights": lambda cost: size(cost.weights_nbytes),
        "full cache": lambda cost: size(cost.full_nbytes),
        "kept": lambda cost: grouped(cost.kept),
        "kept keys, values": lambda cost: size(cost.kept_nbytes),
        "state": lambda cost: size(cost.state_nbytes),
        "window": lambda cost: size(cost.window_nbytes),
        "cache": lambda cost: size(cost.cache_nbytes),
        "weights + full": lambda cost: size(cost.full_total_nbytes),
        "weights + cache": lambda cost: size(cost.total_nbytes),
    }
    for title, costs in costs_of(plan):
        lines = [
            [f"{grouped(cost.tokens)} {label}", *(value(cost) for value in columns.values())]
            for label, cost in costs
        ]
        print_table(title, ["tokens", *columns], lines, width=160)
    if (line := beyond_positions(plan)) is not None:
        click.echo(line, err=True)
    click.echo(
        "What a forward call needs for its own numbers, some hundred MB, comes on top.", err=True
    )
