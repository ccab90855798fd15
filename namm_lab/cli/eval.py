"""`namm-llm eval`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.fidelity import run_fidelity
from namm_lab.cli.values import names, numbers, print_table
from namm_llm.cli.options import Settings, command, quiet_libraries, setting_option
from namm_llm.cli.progress import ProgressBar
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from namm_lab.rows import Row

LISTS = ("tasks", "policies", "budgets", "budget_scope", "modes")


@command("load", name="eval", output=False)
@click.option("--tasks", metavar="A,B", help="What is asked, see above.  [default: fact]")
@click.option("--lengths", metavar="N,M", help="Tokens of a document.  [default: 2000]")
@click.option(
    "--policies",
    metavar="A,B",
    help="Policies to compare.  [default: all, namm if the model has one]",
)
@click.option(
    "--budgets",
    metavar="A,B",
    help="As --budget elsewhere; none: a policy's threshold.  [default: 0.5,0.25,0.125]",
)
@click.option(
    "--namm",
    "namms",
    metavar="FILE",
    multiple=True,
    help="NAMM file for the policy namm.  May be repeated.",
)
@click.option(
    "--budget-scope",
    metavar="A,B",
    help="head, layer, model, padded, or own: the policy's.  [default: own]",
)
@setting_option("interval")
@setting_option("sinks")
@setting_option("protect_recent")
@setting_option("kv_bits")
@click.option(
    "--samples", metavar="N", type=int, help="Documents for each task and length.  [default: 4]"
)
@click.option(
    "--questions", metavar="N", type=int, help="Questions about a document.  [default: 8]"
)
@click.option(
    "--mode",
    "modes",
    metavar="A,B",
    help="agnostic: question after the eviction; aware: before it.  [default: agnostic]",
)
@click.option("--seed", metavar="N", type=int, help="Of documents and questions.  [default: 0]")
@click.option(
    "--split",
    metavar="S",
    help="train, validation or test texts, names and values.  [default: test]",
)
@click.option(
    "--texts",
    metavar="FOLDER",
    help="Documents from .txt, .md and .py files, not from Python's own texts.",
)
@click.option(
    "--least-full",
    metavar="X",
    type=float,
    help="Where the full cache scores less, such as 0.7, measure nothing else.  [default: 0.0]",
)
@click.option(
    "-o",
    "--json",
    "json_file",
    metavar="FILE",
    help="Add rows as JSON lines; those in it are not measured again.",
)
@click.option("--plot", metavar="FILE", help="Draw score against what was kept (.png, .svg, .pdf).")
@click.option(
    "--recommend",
    metavar="X",
    type=float,
    help="With --texts alone: the smallest budget whose fidelity is at least X, such as 0.95.",
)
@click.option(
    "--confidence", metavar="X", type=float, default=0.95, help="Of --recommend.  [default: 0.95]"
)
def eval(
    settings: Settings,
    json_file: str | None,
    plot: str | None,
    recommend: float | None,
    confidence: float,
    **given: Any,
) -> None:
    """Compare policies and budgets by what the model still answers, all on the same documents.

    The full cache is always measured as the reference; where it scores below 0.7, a task says
    nothing about eviction and is marked.

    --texts FOLDER without --tasks measures fidelity on your own documents, without labels: how
    often the likeliest token is the full cache's in the text that follows, in passages to repeat
    and in answers to fixed requests.

    \b
    Tasks: fact, word     single facts, whose values are numbers or words
           keys           single facts, many records with names that look alike
           values, list   all values of one record, all records of one kind
           entries        all numbered entries of one kind
           missing        half of what is asked is not in the document
           passages       which passage says this
           prose, code    perplexity of how the text goes on
           needle         a needle in a haystack
           niah_*         RULER's needles: single_1/2/3, multikey_1/2/3, multivalue, multiquery
           needles        eight needles in prose, each asked for by itself
           vt, cwe, fwe   RULER's variable tracking, common words, frequent words
           qa_1, qa_2     RULER's questions over documents, of docstrings; qa_2 needs two of them
           sentences      how sentences of several documents go on
           summary        three sentences, against the text's principal ones
           conversation   what a user said long ago, and since then changed
           repository     the next line of code, which calls what stands long before
           many_shot      classes that the examples alone explain
           longbench:FILE, ruler:FILE   jsonl files of these benchmarks

    \b
    Examples:
      namm-llm eval --tasks fact,passages --lengths 2000,8000 --budgets 0.25
      namm-llm eval --policies replay,keydiff -o rows.jsonl --plot rows.png
      namm-llm eval --texts my-folder/ --samples 100 --policies replay --recommend 0.95
    """
    quiet_libraries()
    from namm_lab.evaluate import KEY, Evaluation, draw_scores, evaluate
    from namm_lab.rows import RowFile
    from namm_llm.inspect.figure import check_figure

    fields = _fields(given)
    plan = Evaluation(**fields)
    if plan.texts is not None and "tasks" not in fields:
        run_fidelity(
            settings, plan,
            json_file=json_file, plot=plot, recommend=recommend, confidence=confidence,
        )  # fmt: skip
        return
    if recommend is not None:
        raise UsageError("--recommend goes by fidelity: give --texts FOLDER, and no --tasks.")
    file = RowFile(json_file, KEY) if json_file is not None else None
    if plot is not None:
        check_figure(plot)
    runner = settings.load()
    with ProgressBar("Measuring", "rows") as bar:

        def on_row(row: Row, done: int, total: int) -> None:
            bar.update(done, total)
            bar.note(f"{row['task']}, {row['length']} tokens: {row['cache']}")

        rows = evaluate(runner, plan, file=file, on_row=on_row)
    _print(rows)
    if plot is not None:
        draw_scores(rows, plot)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as fields of an `Evaluation`."""
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    for name in LISTS:
        if name in fields:
            fields[name] = names(fields[name])
    if "lengths" in fields:
        fields["lengths"] = numbers("lengths", fields["lengths"])
    return fields


def _print(rows: list[Row]) -> None:
    """One table for each task, length and mode."""
    from itertools import groupby

    for _, cell in groupby(rows, lambda row: (row["task"], row["length"], row["mode"])):
        _print_cell(list(cell), rows)


def _print_cell(cell: list[Row], rows: list[Row]) -> None:
    from namm_lab.evaluate import label_of, says_nothing
    from namm_llm.cli.output import size

    first = cell[0]
    title = (
        f"{first['task']}, {first['length']} tokens, {first['mode']}: "
        f"{first['samples']} scores of {first['documents']} documents"
        + ("; says nothing, the full cache fails" if says_nothing(first) else "")
    )
    columns: dict[str, Callable[[Row], str]] = {
        "policy": lambda row: label_of(row, rows),
        "budget": lambda row: row["budget"] or ("" if row["policy"] == "full" else "threshold"),
        "score": lambda row: f"{row['score']:.3f}",
        "95 %": lambda row: f"{row['low']:.3f}-{row['high']:.3f}",
        "of full": lambda row: "-" if row["share"] is None else f"{row['share']:.3f}",
        "perplexity": lambda row: f"{row['perplexity']:.2f}",
        "kept": lambda row: f"{row['kept_fraction']:.3f}",
        "cache": lambda row: size(row["nbytes"]),
        "full cache": lambda row: size(row["full_nbytes"]),
        "seconds": lambda row: f"{row['seconds']:.1f}",
    }
    if "perplexity" not in first:
        del columns["perplexity"]
    lines = [[value(row) for value in columns.values()] for row in cell]
    print_table(title, list(columns), lines, width=120)
