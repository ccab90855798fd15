"""`python -m namm_lab.decision`: `table` trains a Decision Transformer in each task and lets every
policy play, `inspect` shows what the cache held of an episode.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from transformers import DecisionTransformerModel
from transformers.utils import logging

from namm_lab.decision.environments import TASKS, TMAZE, Task, task_named
from namm_lab.decision.look import draw_strip, inspect_episode
from namm_lab.decision.play import FIRST_SEED
from namm_lab.decision.table import INTERVAL, POLICIES, compare, contenders, line, lines
from namm_lab.decision.training import ready, train
from namm_llm import Namm, NammError, UsageError, make_cache_config
from namm_llm.inspect import rows_of, write_page
from namm_llm.inspect.terminal import table_lines


@click.group()
def main() -> None:
    """A Decision Transformer whose past is in the managed cache."""


def refusing(function: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Takes options as one dictionary; ends in one line where a user's mistake was found."""

    @functools.wraps(function)
    def run(**given: Any) -> None:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            function(given)
        except NammError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)

    return run


MODELS = click.option(
    "--models",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Keep the trained models there, and take those that are there.",
)


@main.command()
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
@MODELS
@refusing
def table(given: dict[str, Any]) -> None:
    """Train, let every policy play, print returns with 95 % intervals."""
    tasks = [task_named(name) for name in given["tasks"].split(",")]
    namms = [_named(text) for text in given["namms"]]
    players = contenders([name for name in given["policies"].split(",") if name], namms)
    for heading in lines([]):
        click.echo(heading)
    for task in tasks:
        model = model_of(task, given["models"])
        budgets, episodes = given["budgets"].split(","), given["episodes"]
        compare(model, task, players, budgets, episodes, lambda row: click.echo(line(row)))


@main.command()
@click.option("--task", default=TMAZE.name, show_default=True)
@click.option("--policy", default="h2o", show_default=True)
@click.option("--namm", metavar="FILE", help="For the policy namm.")
@click.option("--budget", default="0.25", show_default=True)
@click.option("--seed", default=FIRST_SEED, show_default=True, help="Of the episode.")
@click.option("-o", "--out", metavar="FILE.html", help="A page for a browser.")
@click.option("--png", metavar="FILE", help="The episode as a strip, .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Rows of numbers.")
@MODELS
@refusing
def inspect(given: dict[str, Any]) -> None:
    """Play one episode and show which of its tokens the cache still holds."""
    task = task_named(given["task"])
    namm = Namm.load(given["namm"]) if given["namm"] else None
    config = make_cache_config(
        given["policy"], namm=namm, budget=given["budget"], interval=INTERVAL
    )
    found = inspect_episode(model_of(task, given["models"]), task, config, given["seed"])
    if given["out"]:
        write_page(found, given["out"])
    if given["png"]:
        draw_strip(found, given["png"])
    if given["as_json"]:
        for row in rows_of(found):
            click.echo(json.dumps(row))
    elif not (given["out"] or given["png"]):
        click.echo("\n".join(table_lines(found)))


def model_of(task: Task, folder: Path | None) -> DecisionTransformerModel:
    """The task's model: from the folder if it is there, else trained, and put there."""
    place = folder / task.name if folder else None
    if place and (place / "config.json").is_file():
        return ready(DecisionTransformerModel.from_pretrained(place))
    torch.set_num_threads(1)  # matrices of 64 are too small to share; two threads took far longer
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
