"""`namm-llm train distil`: a NAMM learnt by gradient."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.train.files import family, new_file
from namm_lab.cli.train.options import FAMILY_OPTION, LENGTH_OPTION, command, minutes, tell
from namm_lab.cli.train.rounds import RoundFiles
from namm_lab.cli.train.source import LENGTHS, QUESTIONS, load, source_of
from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_lab.train import DistilSettings, TrainDocument
    from namm_llm import Namm
    from namm_llm.models.loading import LoadedModel

TASKS = "fact,keys,values,list"
DOCUMENTS = 16


@command(
    "distil",
    click.option(
        "--tasks", metavar="T,T", help=f"What the documents are asked.  [default: {TASKS}]"
    ),
    click.option(
        "--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['distil']}]"
    ),
    click.option(
        "--documents",
        metavar="N",
        type=int,
        help=f"Documents with questions to learn from.  [default: {DOCUMENTS}]",
    ),
    click.option(
        "--questions",
        metavar="N",
        type=int,
        help=f"About a document.  [default: {QUESTIONS['distil']}]",
    ),
    click.option(
        "--steps", metavar="N", type=int, help="Gradient steps of a round.  [default: 1000]"
    ),
    click.option(
        "--rounds", metavar="N", type=int, help="Collections of what the NAMM sees.  [default: 3]"
    ),
    click.option(
        "--budget",
        metavar="B",
        type=float,
        help="Share that stays while rounds after the first collect.  [default: 0.03125]",
    ),
    click.option(
        "--budget-scope",
        metavar="WHO",
        help="Tokens of one head, layer or model share it.  [default: model]",
    ),
    click.option(
        "--rate", metavar="R", type=float, help="Highest learning rate.  [default: 0.005]"
    ),
    click.option(
        "--labels",
        metavar="L",
        help="questions: a token is worth what questions pay to it; repeat: what the document pays "
        "to it that comes a second time.  [default: questions]",
    ),
    click.option(
        "--loss",
        metavar="L",
        help="needed: which tokens are needed; ranking: which of two is needed more.  "
        "[default: needed]",
    ),
    click.option(
        "--batch", metavar="N", type=int, help="Heads that make a gradient step.  [default: 8]"
    ),
    FAMILY_OPTION,
    click.option(
        "--keep-rounds",
        is_flag=True,
        help="Write the NAMM of each round too, as FILE.round1 and so on.",
    ),
)
def distil(given: dict[str, Any]) -> None:
    """Learn a NAMM from what a full cache uses.

    By gradient. Made-up documents with questions are read with the full cache, which says what the
    questions looked at, and again under the NAMM's own evictions, which says what the NAMM sees.
    Python's documentation and library are the text, or --texts. FILE.jsonl has a line for each
    round: loss, samples, seconds.
    """
    settings, form = distil_settings(given), family(given)
    out = new_file(given)
    loaded = load(given)
    source = source_of(given, loaded, "distil")
    tasks = given.get("tasks", TASKS).split(",")
    began = time.perf_counter()
    rounds = RoundFiles(out, keep="keep_rounds" in given)
    count = given.get("documents", DOCUMENTS)
    labels = given.get("labels", "questions")
    documents = source.train_documents(tasks, given.get("seed", 0), count, labels)
    tokens = sum(len(each.document) for each in documents)
    tell(
        f"Distilling for {loaded.model_id}: {len(documents)} documents, {tokens} tokens, tasks "
        f"{', '.join(tasks)}. Writes {out}."
    )
    namm = learn(settings, form, loaded, documents, rounds)
    namm.save(out)
    click.echo(
        f"{out}: distilled for {loaded.model_id} in {minutes(began)}. Use it with --namm {out}"
    )


def distil_settings(given: dict[str, Any]) -> DistilSettings:
    """Only what was given; the rest has its defaults."""
    from namm_lab.train import DistilSettings

    names = (
        "steps", "rounds", "budget", "budget_scope", "rate", "interval", "seed", "loss", "batch",
    )  # fmt: skip
    return DistilSettings(**{name: given[name] for name in names if name in given})


def learn(
    settings: DistilSettings,
    form: Namm,
    loaded: LoadedModel,
    documents: list[TrainDocument],
    rounds: RoundFiles,
) -> Namm:
    """With progress, and a line for each round."""
    from namm_lab.train import distil as distil_namm

    with ProgressBar("Distilling", "steps") as bar:

        def report(row: dict[str, float]) -> None:
            bar.update(int(row["step"]), settings.steps)
            bar.note(f"loss {row['loss']:.3f}")
            rounds.note(row)

        return distil_namm(loaded.model, documents, settings, report, form, rounds.close)
