"""`python -m namm_lab.decision`: trains a Decision Transformer in each task, lets every policy
play, prints the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import torch
from transformers import DecisionTransformerModel
from transformers.utils import logging

from namm_lab.decision.environments import TASKS, Task, task_named
from namm_lab.decision.table import POLICIES, contenders, line, lines, rows_of
from namm_lab.decision.training import ready, train
from namm_llm import Namm, NammError, UsageError


@click.command()
@click.option("--tasks", default=",".join(TASKS), show_default=True, help="Separated by commas.")
@click.option("--policies", default=",".join(POLICIES), show_default=True, help="So too.")
@click.option("--budgets", default="0.5,0.25", show_default=True, help="So too.")
@click.option(
    "--namm",
    "namms",
    metavar="LABEL=FILE",
    multiple=True,
    help="A NAMM to play with as well; may be repeated.",
)
@click.option("--episodes", default=100, show_default=True, help="That each policy plays.")
@click.option(
    "--models",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep the trained models there, and take those that are there.",
)
def main(**given: Any) -> None:
    """What each policy is worth to a Decision Transformer: returns, with 95 % intervals."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        run(given)
    except NammError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def run(given: dict[str, Any]) -> None:
    """Train, play, print. Raises NammError."""
    tasks = [task_named(name) for name in given["tasks"].split(",")]
    namms = [_named(text) for text in given["namms"]]
    players = contenders([name for name in given["policies"].split(",") if name], namms)
    for heading in lines([]):
        click.echo(heading)
    for task in tasks:
        model = model_of(task, given["models"])
        budgets, episodes = given["budgets"].split(","), given["episodes"]
        rows_of(model, task, players, budgets, episodes, lambda row: click.echo(line(row)))


def model_of(task: Task, folder: Path | None) -> DecisionTransformerModel:
    """The task's model: from the folder if it is there, else trained, and put there."""
    place = folder / task.name if folder else None
    if place and (place / "config.json").is_file():
        return ready(DecisionTransformerModel.from_pretrained(place))
    torch.set_num_threads(min(2, torch.get_num_threads()))
    model = train(task, report=lambda *row: click.echo(_progress(task, *row), err=True))
    if place:
        model.save_pretrained(place)
    return model


def _progress(task: Task, step: int, loss: float, seconds: float) -> str:
    return f"{task.name}: step {step}, loss {loss:.4f}, {seconds:.0f} s"


def _named(text: str) -> tuple[str, Namm]:
    label, equals, file = text.partition("=")
    if not equals:
        raise UsageError(f"--namm takes LABEL=FILE, not {text!r}.")
    return f"NAMM {label}", Namm.load(file)
