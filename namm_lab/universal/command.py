"""`python -m namm_lab.universal`: a NAMM of the family `universal`, distilled on text, the T-maze
and CartPole, then evolved on them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from namm_lab.decision.command import model_of
from namm_lab.decision.environments import CARTPOLE, TMAZE
from namm_lab.rows import Row
from namm_lab.train.families import family
from namm_lab.universal.domain import Domain
from namm_lab.universal.learning import Recipe, distil_on, evolve_on
from namm_lab.universal.mazes import MazeDomain
from namm_lab.universal.texts import TextDomain
from namm_llm import NammError
from namm_llm.io import check_writable
from namm_llm.models.loading import load_model

TEXT_INTERVAL = 256


@click.command()
@click.option("--family", default="universal", show_default=True, help="See namm-llm train distil.")
@click.option("--model", default="namm-tiny", show_default=True, help="That reads the texts.")
@click.option(
    "--models",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Of the Decision Transformers; trained, and put there, if they are not.",
)
@click.option("--rate", default=5e-3, show_default=True, help="Highest learning rate.")
@click.option("--generations", default=Recipe.generations, show_default=True, help="Of evolution.")
@click.option("-o", "--out", default="universal.safetensors", show_default=True, metavar="FILE")
def main(**given: Any) -> None:
    """Make one NAMM for text and action. FILE.distilled is what evolution begins with."""
    try:
        run(given)
    except NammError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


def run(given: dict[str, Any]) -> None:
    """Raises NammError."""
    form, out = family(given["family"]), check_writable(Path(given["out"]))
    recipe, began = (
        Recipe(rate=given["rate"], generations=given["generations"]),
        time.perf_counter(),
    )

    def report(row: Row) -> None:
        click.echo(json.dumps({**row, "seconds": round(time.perf_counter() - began)}), err=True)

    domains: list[Domain] = [TextDomain(load_model(given["model"]), TEXT_INTERVAL)]
    domains += [MazeDomain(model_of(task, given["models"]), task) for task in (TMAZE, CARTPOLE)]
    start = distil_on(domains, form, recipe, report)
    start.save(f"{out}.distilled")
    evolve_on(domains, start, recipe, report).save(out)
    click.echo(f"{out}: use it with --namm {out}")
