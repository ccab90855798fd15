"""`namm-llm eval --texts FOLDER` without tasks: fidelity, and the budget that keeps it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from namm_lab.cli.values import print_table
from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_lab.evaluate import CacheSetting, Evaluation
    from namm_lab.rows import Row
    from namm_llm import Runner
    from namm_llm.cli.options import Settings


def run_fidelity(
    given: Settings,
    plan: Evaluation,
    *,
    json_file: str | None,
    plot: str | None,
    recommend: float | None,
    confidence: float,
) -> None:
    """Measure, print, draw and recommend. UsageError for shares that are none."""
    from namm_lab.evaluate.fidelity import KEY, measure_fidelity, summary
    from namm_lab.evaluate.risk import check_shares
    from namm_lab.rows import RowFile
    from namm_llm.inspect.figure import check_figure
    from namm_llm.models.own_namm import own_namm

    if recommend is not None:
        check_shares(recommend, confidence)
    if plot is not None:
        check_figure(plot)
    file = RowFile(json_file, KEY) if json_file is not None else None
    runner = given.load()
    own = own_namm(runner.model_id)
    settings = [each for each in plan.settings(own) if each.config.policy.evicts]
    with ProgressBar("Measuring", "rows") as bar:

        def on_row(row: Row, done: int, total: int) -> None:
            bar.update(done, total)
            bar.note(row["cache"])

        rows = measure_fidelity(runner, plan, settings, file=file, on_row=on_row)
    cells = [
        list(cell)
        for _, cell in groupby(
            sorted(rows, key=lambda row: settings_order(row, rows)), lambda row: row["cache"]
        )
    ]
    summaries = [summary(cell) for cell in cells]
    _print(summaries, plan)
    if plot is not None:
        from namm_lab.evaluate.plot import draw_fidelity

        draw_fidelity(summaries, runner.model_id, plot)
    if recommend is not None:
        _recommend(runner, settings, cells, recommend, confidence)


def settings_order(row: Row, rows: list[Row]) -> int:
    """Where the row's setting came first."""
    return next(number for number, other in enumerate(rows) if other["cache"] == row["cache"])


def _print(summaries: list[Row], plan: Evaluation) -> None:
    title = (
        f"Fidelity to the full cache, {summaries[0]['documents']} documents of "
        f"{plan.lengths[0]} tokens of {plan.texts}"
    )
    columns = [
        "policy", "budget", "fidelity", "95 %", "text goes on", "passages", "answers",
        "same answer", "KL", "perplexity", "kept",
    ]  # fmt: skip
    lines = [
        [
            str(row["policy"]),
            str(row["budget"]),
            f"{row['fidelity']:.3f}",
            f"{row['low']:.3f}-{row['high']:.3f}",
            *(f"{row[kind]:.3f}" for kind in ("continuation", "passage", "request", "answer")),
            f"{row['kl']:.3f}",
            f"{2.718281828 ** row['log_perplexity'] - 1:+.1%}",
            f"{row['kept_fraction']:.3f}",
        ]
        for row in summaries
    ]
    print_table(title, columns, lines, width=140)


def _recommend(
    runner: Runner,
    settings: list[CacheSetting],
    cells: list[list[Row]],
    fidelity: float,
    confidence: float,
) -> None:
    """A line for each policy and scope, its budgets tested from the largest down; what passes is
    kept for `--budget auto`.
    """
    import click

    from namm_lab.evaluate.risk import recommend
    from namm_llm.models.budgets import keep_budget

    configs = {each.config.describe(): each.config for each in settings}
    by_policy: dict[tuple[str, str], list[list[Row]]] = {}
    for cell in cells:
        config = configs[cell[0]["cache"]]
        by_policy.setdefault((config.policy.name, config.budget_scope), []).append(cell)
    for (name, scope), of in by_policy.items():
        of.sort(key=lambda cell: -sum(row["kept_fraction"] for row in cell))
        losses = {str(cell[0]["budget"]): [1 - row["fidelity"] for row in cell] for cell in of}
        found = recommend(losses, fidelity, confidence)
        click.echo(f"{name}, {scope}: {found.sentence()}")
        if found.budget is not None:
            keep_budget(runner.fingerprint, configs[of[0][0]["cache"]], found.budget, found.known())
            click.echo(f"--policy {name} --budget auto now means {found.budget} for this model.")
