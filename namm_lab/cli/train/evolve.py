"""`namm-llm train evolve`: a NAMM improved by trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.train.calibrate import CALIBRATE_ON, DOCUMENTS, fit
from namm_lab.cli.train.files import family, new_file, out_of
from namm_lab.cli.train.options import FAMILY_OPTION, LENGTH_OPTION, command, tell
from namm_lab.cli.train.source import LENGTHS, QUESTIONS, load, source_of
from namm_lab.cli.train.stages import TASKS, evolve_settings, identity
from namm_lab.cli.train.workers import workers_of
from namm_llm import UsageError
from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_lab.train.checkpoint import State, WorkFiles
    from namm_lab.train.evolution import Evolution
    from namm_lab.train.evolve_settings import EvolveSettings
    from namm_lab.train.sample_source import SampleSource
    from namm_lab.train.workers import Workers
    from namm_llm import Namm

THRESHOLD_DOCUMENTS = 4


@command(
    "evolve",
    click.option(
        "--namm",
        metavar="FILE",
        help="Start from this NAMM.  [default: from zeros, which keep everything]",
    ),
    click.option(
        "--tasks",
        metavar="T,T",
        multiple=True,
        help=f"Tasks of a stage; again for a next stage, which adds its tasks.  [default: {TASKS}]",
    ),
    click.option(
        "--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['evolve']}]"
    ),
    click.option(
        "--generations", metavar="N", type=int, help="Most generations of a stage.  [default: 100]"
    ),
    click.option(
        "--minutes",
        metavar="N",
        type=float,
        help="Stop after so long; the same call goes on later.",
    ),
    click.option(
        "--population", metavar="N", type=int, help="Candidates of a generation.  [default: 16]"
    ),
    click.option(
        "--sigma",
        metavar="S",
        type=float,
        help="First step size.  [default: 0.02 from a NAMM, 0.065 from zeros]",
    ),
    click.option(
        "--budgets",
        metavar="B,B",
        help="A candidate's fitness is its mean over these.  [default: 0.0625,0.03125]",
    ),
    click.option(
        "--budget-scope",
        metavar="WHO",
        help="Tokens of one head, layer or model share a budget.  [default: model]",
    ),
    click.option(
        "--documents", metavar="N", type=int, help="Of each task for a generation.  [default: 1]"
    ),
    click.option(
        "--questions",
        metavar="N",
        type=int,
        help=f"About a document.  [default: {QUESTIONS['evolve']}]",
    ),
    click.option(
        "--validation",
        metavar="N",
        type=int,
        help="Documents of each task to validate with.  [default: 4]",
    ),
    click.option(
        "--validate-every",
        metavar="N",
        type=int,
        help="Generations between two validations.  [default: 5]",
    ),
    click.option(
        "--patience",
        metavar="N",
        type=int,
        help="Validations without a better NAMM that end a stage.  [default: 6]",
    ),
    click.option(
        "--measure", metavar="M", help="likelihood, tokens or exact.  [default: likelihood]"
    ),
    click.option(
        "--batch",
        metavar="N",
        type=int,
        help="Sequences that run through the model together.  [default: 32]",
    ),
    click.option(
        "--workers", metavar="W", help="ray, or a number of processes.  [default: this process]"
    ),
    FAMILY_OPTION,
    click.option(
        "--resume",
        is_flag=True,
        help="Insist on going on: an error if there is nothing to go on from.",
    ),
)
def evolve(given: dict[str, Any]) -> None:
    """Improve a NAMM by trial.

    Separable CMA-ES. A candidate's fitness is what it keeps of the full cache's performance on the
    same prompts. FILE always has the best so far; FILE.work is what the same call goes on from, by
    itself, after Ctrl-C or a crash; FILE.jsonl has a line for each generation. Used without a
    budget, FILE keeps about what the first of the budgets keeps.
    """
    from namm_lab.train.checkpoint import WorkFiles

    settings = evolve_settings(given)
    out = out_of(given)
    start = starting_namm(given)
    loaded = load(given)
    source = source_of(given, loaded, "evolve")
    begun_with = start.fingerprint if start else f"zeros of {given.get('family', 'the default')}"
    files = WorkFiles(out, {**identity(given, settings, source), "start": begun_with})
    with workers_of(given, loaded) as workers:
        run_evolution(given, settings, source, start, files, workers)


def run_evolution(
    given: dict[str, Any],
    settings: EvolveSettings,
    source: SampleSource,
    start: Namm | None,
    files: WorkFiles,
    workers: Workers,
) -> None:
    """Begin or continue, and say so."""
    from namm_lab.train.evolution import Evolution

    resumed = resume(given, files)
    state, namm = resumed if resumed else (None, start or zeros(given, source, settings.interval))
    tell(announced(settings, source, files, state, "a NAMM" if start else "zeros"))
    with ProgressBar("Evolving", "readings") as bar:
        evolution = Evolution(
            namm,
            source.eval_documents,
            workers,
            settings,
            on_done=bar.update,
            finish=finish_of(source, settings),
        )
        state = run_until(evolution, files, state, given.get("minutes"), bar)
    share = f"{state.best_score:.1%} of the full cache's {settings.measure} on validation"
    click.echo(
        f"{files.out}: {share} after {state.search.generation} generations. "
        f"Use it with --namm {files.out}"
    )


def announced(
    settings: EvolveSettings,
    source: SampleSource,
    files: WorkFiles,
    state: State | None,
    start: str,
) -> str:
    """What is about to happen, in one line."""
    begins = f"goes on after generation {state.search.generation}" if state else ""
    return (
        f"Evolving for {source.loaded.model_id}: {begins or f'starts from {start}'}, "
        f"{settings.population} candidates, budgets {', '.join(settings.budgets)}, tasks "
        f"{' then '.join(', '.join(stage) for stage in settings.stages)}. Writes {files.out}."
    )


def run_until(
    evolution: Evolution,
    files: WorkFiles,
    state: State | None,
    minutes: float | None,
    bar: ProgressBar,
) -> State:
    """Where the search stands when it is over, or after so many minutes; Ctrl-C is passed on."""
    end = float("inf") if minutes is None else time.perf_counter() + 60 * minutes
    try:
        _, state = evolution.run(
            files,
            state,
            report=lambda row: bar.note(line_of(row)),
            stop=lambda: time.perf_counter() > end,
        )
    except KeyboardInterrupt:
        bar.stop()
        if files.work.is_file():
            tell(f"{files.out} has the best NAMM so far; the same call goes on from {files.work}.")
        raise
    return state


def finish_of(source: SampleSource, settings: EvolveSettings) -> Callable[[Namm], Namm]:
    """Budgets alone leave the threshold anywhere: it is put to where the first of them cuts."""
    from namm_lab.train.evolve_settings import THRESHOLD
    from namm_lab.train.threshold import set_threshold

    if THRESHOLD in settings.budgets:
        return lambda namm: namm
    documents = source.documents(CALIBRATE_ON, settings.seed, THRESHOLD_DOCUMENTS)
    return lambda namm: set_threshold(source.loaded.model, settings.configs(namm)[0], documents)


def starting_namm(given: dict[str, Any]) -> Namm | None:
    from namm_llm import Namm

    return Namm.load(given["namm"]) if "namm" in given else None


def resume(given: dict[str, Any], files: WorkFiles) -> tuple[State, Namm] | None:
    """State and NAMM to go on from; None to begin. What is there is not replaced unasked."""
    if given.get("force"):
        files.remove()
    if found := files.resume():
        return found
    if given.get("resume"):
        raise UsageError(f"there is no {files.work} to go on from; leave out --resume to begin.")
    new_file(given)
    return None


def zeros(given: dict[str, Any], source: SampleSource, interval: int) -> Namm:
    """Parameters of zero with the model's own statistics, so that steps in every direction are
    alike.
    """
    from namm_lab.train.families import for_model

    form = for_model(family(given), source.loaded.model)
    return fit(source, form, DOCUMENTS, 0, interval)


def line_of(row: dict[str, Any]) -> str:
    """A generation in a line for the terminal."""
    parts = [f"generation {row['generation']}"]
    if "fitness_best" in row:
        parts += [
            f"fitness {row['fitness_mean']:.3f} (best {row['fitness_best']:.3f})",
            f"sigma {row['sigma']:.4f}",
        ]
    return " · ".join([*parts, f"saved {row['saved']:.3f}", f"{row['seconds']:.0f} s"])
