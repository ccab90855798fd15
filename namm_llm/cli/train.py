"""`namm-llm train distil | evolve | calibrate`: a NAMM for a model."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.options import BUNDLED, MODEL_OPTION, WEIGHTS_OPTIONS, quiet_libraries
from namm_llm.cli.progress import JobBar
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from namm_llm.namm import Namm
    from namm_llm.runner.loading import LoadedModel
    from namm_llm.training.drawing import SampleSource
    from namm_llm.training.evolution import EvolveSettings
    from namm_llm.training.lessons import Lesson
    from namm_llm.training.workers import Workers

MODEL_SETTINGS = ("quantization", "device", "dtype")
LENGTHS = {"distil": "3584", "evolve": "2048", "calibrate": "4096"}  # tokens of the documents
TASKS = {"distil": "fact,keys,values,list", "evolve": "fact,values,passages"}
QUESTIONS = {"distil": 64, "evolve": 8, "calibrate": 8}  # a fact that no lesson asks for counts as not needed
LESSONS, DOCUMENTS = 16, 8
CALIBRATE_ON = "fact"  # mostly prose, some code, with statements between

SOURCE_OPTIONS = (
    click.option("--texts", metavar="FOLDER", help="Make documents of these .txt, .md and .py files.  [default: Python's own]"),
    click.option("--interval", metavar="N", type=int, help="Tokens between two evictions.  [default: 512]"),
    click.option("--seed", metavar="N", type=int, help="Draws other documents and numbers.  [default: 0]"),
    click.option("--force", is_flag=True, help="Replace what is there."),
)


@click.group()
def train() -> None:
    """Make a NAMM for a model.

    distil learns one from what the full cache uses (minutes), evolve improves one by trial (hours), calibrate fits one
    that another model has to this one (seconds).
    """


def command(name: str, *options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """A command with the model's options, `options` and those of documents; it gets what the user gave, as one dictionary."""
    out = click.option("-o", "--out", metavar="FILE", help="The NAMM file to write.  [default: namm.safetensors]")

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def given(**values: Any) -> None:
            function({key: value for key, value in values.items() if not (value is None or value is False or value == ())})

        for option in reversed((MODEL_OPTION, out, *options, *SOURCE_OPTIONS, *WEIGHTS_OPTIONS)):
            given = option(given)
        return train.command(name)(given)

    return decorate


FAMILY_OPTION = click.option("--family", metavar="F", help="What the NAMM sees; a wrong name lists them all.  [default: neighbours]")
LENGTH_OPTION = "Tokens of the documents; several take turns."


@command(
    "distil",
    click.option("--tasks", metavar="T,T", help=f"What the lessons ask.  [default: {TASKS['distil']}]"),
    click.option("--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['distil']}]"),
    click.option("--lessons", metavar="N", type=int, help=f"Documents with questions to learn from.  [default: {LESSONS}]"),
    click.option("--questions", metavar="N", type=int, help=f"About a document.  [default: {QUESTIONS['distil']}]"),
    click.option("--steps", metavar="N", type=int, help="Gradient steps of a round.  [default: 1000]"),
    click.option("--rounds", metavar="N", type=int, help="Collections of what the NAMM sees.  [default: 3]"),
    click.option("--budget", metavar="B", type=float, help="Share that stays while rounds after the first collect.  [default: 0.03125]"),
    click.option("--compete", metavar="WHO", help="Tokens of one head, layer or model share it.  [default: model]"),
    click.option("--rate", metavar="R", type=float, help="Highest learning rate.  [default: 0.005]"),
    FAMILY_OPTION,
)
def distil(given: dict[str, Any]) -> None:
    """Learn a NAMM from what a full cache uses.

    By gradient. Made-up documents with questions are read with the full cache, which says what the questions looked at, and
    again under the NAMM's own evictions, which says what the NAMM sees. Python's documentation and library are the text, or --texts.
    """
    out = new_file(given)
    loaded = load(given)
    source = source_of(given, loaded, "distil")
    tasks = given.get("tasks", TASKS["distil"]).split(",")
    began = time.perf_counter()
    lessons = source.lessons(tasks, given.get("seed", 0), given.get("lessons", LESSONS))
    tokens = sum(len(lesson.document) for lesson in lessons)
    say(f"Distilling for {loaded.model_id}: {len(lessons)} documents, {tokens} tokens, tasks {', '.join(tasks)}. Writes {out}.")
    namm = learn(given, loaded, lessons)
    namm.save(out)
    click.echo(f"{out}: distilled for {loaded.model_id} in {minutes(began)}. Use it with --namm {out}")


def learn(given: dict[str, Any], loaded: LoadedModel, lessons: list[Lesson]) -> Namm:
    """The one place that knows how `namm_llm.training.distil` is called."""
    from namm_llm.training import DistilSettings
    from namm_llm.training import distil as distil_namm

    chosen = {name: given[name] for name in ("steps", "rounds", "budget", "compete", "rate", "interval", "seed") if name in given}
    settings = DistilSettings(**chosen)
    with JobBar("Distilling", "steps") as bar:

        def report(row: dict[str, float]) -> None:
            bar.update(int(row["step"]), settings.steps)
            bar.note(f"loss {row['loss']:.3f}")

        return distil_namm(loaded.model, lessons, settings, report, family(given))


@command(
    "evolve",
    click.option("--namm", metavar="FILE", help="Start from this NAMM.  [default: from zeros, which keep everything]"),
    click.option(
        "--tasks",
        metavar="T,T",
        multiple=True,
        help=f"Tasks of a stage; again for a next stage, which adds its tasks.  [default: {TASKS['evolve']}]",
    ),
    click.option("--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['evolve']}]"),
    click.option("--generations", metavar="N", type=int, help="Most generations of a stage.  [default: 100]"),
    click.option("--minutes", metavar="N", type=float, help="Stop after so long; the same call goes on later."),
    click.option("--population", metavar="N", type=int, help="Candidates of a generation.  [default: 16]"),
    click.option("--sigma", metavar="S", type=float, help="First step size.  [default: 0.02 from a NAMM, 0.065 from zeros]"),
    click.option("--budgets", metavar="B,B", help="A candidate's fitness is its mean over these.  [default: 0.0625,0.03125]"),
    click.option("--compete", metavar="WHO", help="Tokens of one head, layer or model share a budget.  [default: model]"),
    click.option("--documents", metavar="N", type=int, help="Of each task for a generation.  [default: 1]"),
    click.option("--questions", metavar="N", type=int, help=f"About a document.  [default: {QUESTIONS['evolve']}]"),
    click.option("--validation", metavar="N", type=int, help="Documents of each task to validate with.  [default: 4]"),
    click.option("--validate-every", metavar="N", type=int, help="Generations between two validations.  [default: 5]"),
    click.option("--patience", metavar="N", type=int, help="Validations without a better NAMM that end a stage.  [default: 6]"),
    click.option("--measure", metavar="M", help="likelihood, tokens or exact.  [default: likelihood]"),
    click.option("--batch", metavar="N", type=int, help="Sequences that run through the model together.  [default: 32]"),
    click.option("--workers", metavar="W", help="ray, or a number of processes.  [default: this process]"),
    FAMILY_OPTION,
    click.option("--resume", is_flag=True, help="Insist on going on: an error if there is nothing to go on from."),
)
def evolve(given: dict[str, Any]) -> None:
    """Improve a NAMM by trial.

    Separable CMA-ES. A candidate's fitness is what it keeps of the full cache's performance on the same prompts. FILE always
    has the best so far; FILE.work is what the same call goes on from, by itself, after Ctrl-C or a crash; FILE.jsonl has a
    line for each generation.
    """
    from namm_llm.training.checkpoint import WorkFiles

    settings = evolve_settings(given)
    out = Path(given.get("out", "namm.safetensors"))
    start = starting_namm(given)
    loaded = load(given)
    source = source_of(given, loaded, "evolve")
    begun_with = start.fingerprint if start else f"zeros of {given.get('family', 'the default')}"
    files = WorkFiles(out, {**identity(given, settings, source), "start": begun_with})
    with workers_of(given, loaded) as workers:
        run_evolution(given, settings, source, start, files, workers)


def run_evolution(
    given: dict[str, Any], settings: EvolveSettings, source: SampleSource, start: Namm | None, files: Any, workers: Workers
) -> None:
    """Begin or go on, and say so."""
    from namm_llm.training.evolution import Evolution

    loaded = source.loaded
    resumed = resume(given, files)
    state, namm = resumed if resumed else (None, start or zeros(given, source, settings.interval))
    at = f"goes on after generation {state.search.generation}" if state else f"starts from {'a NAMM' if start else 'zeros'}"
    say(
        f"Evolving for {loaded.model_id}: {at}, {settings.population} candidates, budgets {', '.join(settings.budgets)}, "
        f"tasks {' then '.join(', '.join(stage) for stage in settings.stages)}. Writes {files.out}."
    )
    end = time.perf_counter() + 60 * given["minutes"] if "minutes" in given else float("inf")
    with JobBar("Evolving", "readings") as bar:
        evolution = Evolution(namm, source.exams, workers, settings, on_done=bar.update)
        try:
            _, state = evolution.run(files, state, report=lambda row: bar.note(line_of(row)), stop=lambda: time.perf_counter() > end)
        except KeyboardInterrupt:
            bar.stop()
            if files.work.is_file():
                say(f"{files.out} has the best NAMM so far; the same call goes on from {files.work}.")
            raise
    share = f"{state.best_score:.1%} of the full cache's {settings.measure} on validation"
    click.echo(f"{files.out}: {share} after {state.search.generation} generations. Use it with --namm {files.out}")


@command(
    "calibrate",
    click.option("--namm", metavar="FILE", help="The NAMM to fit to the model.", required=True),
    click.option("--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['calibrate']}]"),
    click.option("--documents", metavar="N", type=int, help=f"Documents to read.  [default: {DOCUMENTS}]"),
)
def calibrate(given: dict[str, Any]) -> None:
    """Fit another model's NAMM to this one.

    Reads text with the model and estimates the means and variances of the NAMM's features anew; the rest of the NAMM stays.
    """
    from namm_llm.namm import Namm

    out = new_file(given)
    namm = Namm.load(given["namm"])
    loaded = load(given)
    began = time.perf_counter()
    source = source_of(given, loaded, "calibrate")
    fitted = fit(source, namm, given.get("documents", DOCUMENTS), given.get("seed", 0), given.get("interval"))
    fitted.save(out)
    click.echo(f"{out}: {given['namm']} calibrated for {loaded.model_id} in {minutes(began)}. Use it with --namm {out}")


# -- what they share ------------------------------------------------------------------------------------------------------------------


def load(given: dict[str, Any]) -> LoadedModel:
    """The model that the NAMM is for."""
    quiet_libraries()
    from namm_llm.runner.loading import load_model

    return load_model(given.get("model", BUNDLED), **model_settings(given))


def model_settings(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in MODEL_SETTINGS if name in given}


def source_of(given: dict[str, Any], loaded: LoadedModel, name: str) -> SampleSource:
    """Where its documents come from."""
    from namm_llm.training.drawing import SampleSource

    lengths = tuple(whole_number(part) for part in given.get("length", LENGTHS[name]).split(","))
    texts = Path(given["texts"]) if "texts" in given else None
    return SampleSource(loaded, lengths, texts, given.get("questions", QUESTIONS[name]))


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number; several are written as 2048,4096") from None


def new_file(given: dict[str, Any]) -> Path:
    """Where the NAMM goes; what is there is not replaced unasked, and a place that cannot be written is refused before any work."""
    out = Path(given.get("out", "namm.safetensors"))
    if out.exists() and not given.get("force"):
        raise UsageError(f"{out} exists already: name another file with --out, or replace it with --force")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: name a file in a folder that exists")
    return out


def evolve_settings(given: dict[str, Any]) -> EvolveSettings:
    """Only what was given; the rest has its defaults."""
    from namm_llm.training.evolution import EvolveSettings

    names = (
        "generations", "population", "sigma", "compete", "interval", "documents", "validation", "validate_every", "patience", "measure",
        "batch", "seed",
    )  # fmt: skip
    settings = {name: given[name] for name in names if name in given}
    if "budgets" in given:
        settings["budgets"] = tuple(part.strip() for part in given["budgets"].split(","))
    return EvolveSettings(stages=stages_of(given.get("tasks", (TASKS["evolve"],))), **settings)


def stages_of(tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """`("a,b", "c")` to `(("a", "b"), ("a", "b", "c"))`. UsageError for a task that is not there."""
    from namm_llm.tasks import make_task

    known: list[str] = []
    stages = []
    for added in tasks:
        known += [make_task(name.strip()).name for name in added.split(",")]
        stages.append(tuple(dict.fromkeys(known)))
    return tuple(stages)


def identity(given: dict[str, Any], settings: EvolveSettings, source: SampleSource) -> dict[str, Any]:
    """What must not change when a run goes on; how long it takes may."""
    kept = {name: value for name, value in asdict(settings).items() if name not in ("generations", "patience")}
    return {
        "model": source.loaded.fingerprint,
        **kept,
        "length": source.lengths,
        "texts": given.get("texts"),
        "questions": source.questions,
    }


def starting_namm(given: dict[str, Any]) -> Namm | None:
    from namm_llm.namm import Namm

    return Namm.load(given["namm"]) if "namm" in given else None


def resume(given: dict[str, Any], files: Any) -> Any:
    """State and NAMM to go on from; None to begin. What is there is not replaced unasked."""
    if given.get("force"):
        files.remove()
    if found := files.resume():
        return found
    if given.get("resume"):
        raise UsageError(f"there is no {files.work} to go on from; leave out --resume to begin")
    new_file(given)
    return None


def zeros(given: dict[str, Any], source: SampleSource, interval: int) -> Namm:
    """Parameters of zero with the model's own statistics, so that steps in every direction are alike."""
    return fit(source, family(given), DOCUMENTS, 0, interval)


def family(given: dict[str, Any]) -> Namm:
    """Parameters of zero with the features and the memory that are wanted."""
    from namm_llm.training import families

    return families.family(given.get("family", families.DEFAULT))


def fit(source: SampleSource, namm: Namm, documents: int, seed: int, interval: int | None) -> Namm:
    """The NAMM with the statistics that its features have with this model."""
    from namm_llm.training.calibrate import calibrate as calibrate_namm

    if documents < 1:
        raise UsageError(f"calibrating needs 1 document or more, not {documents}")
    read = source.documents(CALIBRATE_ON, seed, documents)
    say(f"Calibrating for {source.loaded.model_id}: reads {sum(map(len, read))} tokens in {len(read)} documents.")
    chosen = {} if interval is None else {"interval": interval}
    with JobBar("Calibrating", "documents") as bar:
        return calibrate_namm(source.loaded.model, namm, read, on_done=lambda done: bar.update(done, len(read)), **chosen)


def workers_of(given: dict[str, Any], loaded: LoadedModel) -> Workers:
    """This process, others, or a cluster's."""
    import torch

    from namm_llm.training.ray_workers import RayWorkers
    from namm_llm.training.workers import LocalWorker, ModelSource, ProcessWorkers

    wanted = given.get("workers", "")
    if not wanted:
        return LocalWorker(loaded.model)
    folder = str(loaded.folder.resolve()) if loaded.folder else loaded.model_id
    if wanted == "ray":
        return RayWorkers(ModelSource(folder, model_settings(given)))
    if not wanted.isdigit() or not int(wanted):
        raise UsageError(f"workers must be ray or a number of processes, not {wanted!r}")
    threads = max(1, torch.get_num_threads() // int(wanted))
    return ProcessWorkers(ModelSource(folder, model_settings(given), threads), int(wanted))


def line_of(row: dict[str, Any]) -> str:
    """A generation in a line for the terminal."""
    parts = [f"generation {row['generation']}"]
    if "fitness_best" in row:
        parts += [f"fitness {row['fitness_mean']:.3f} (best {row['fitness_best']:.3f})", f"sigma {row['sigma']:.4f}"]
    return " · ".join([*parts, f"saved {row['saved']:.3f}", f"{row['seconds']:.0f} s"])


def say(line: str) -> None:
    click.echo(line, err=True)


def minutes(began: float) -> str:
    seconds = time.perf_counter() - began
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
