"""`namm-llm train adapt`: LoRA of a model while its cache evicts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.train.options import command, minutes, tell
from namm_lab.cli.train.source import model_settings
from namm_lab.cli.values import names, print_table
from namm_llm import UsageError
from namm_llm.cli.options import quiet_libraries, setting_option
from namm_llm.cli.progress import ProgressBar
from namm_llm.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from namm_lab.train.adapt import AdapterTraining, AdaptSettings, HeldOut, TextSource
    from namm_lab.train.adapt.checkpoint import AdapterFiles
    from namm_llm import CacheConfig
    from namm_llm.models.loading import LoadedModel

BUDGET = "0.0625"
HELD_OUT = 4
_CACHE = ("policy", "namm", "budget", "budget_scope", "sinks", "protect_recent", "interval")


@command(
    "adapt",
    click.option(
        "--losses",
        metavar="L,L",
        help="next: text that follows an evicted passage. repeat: an evicted passage, word for "
        "word. full: text with the full cache. Samples take turns.  [default: next,repeat,full]",
    ),
    click.option(
        "--length",
        metavar="N",
        type=int,
        help="Tokens of a passage, and of what follows it.  [default: 512]",
    ),
    click.option(
        "--steps",
        metavar="N",
        type=int,
        help="Steps in all; the learning rate falls to 0 over them.  [default: 150]",
    ),
    click.option(
        "--minutes",
        metavar="N",
        type=float,
        help="Stop after so long; the same call goes on later.",
    ),
    click.option("--batch", metavar="N", type=int, help="Samples of a step.  [default: 3]"),
    click.option("--rank", metavar="N", type=int, help="Rank of the changes.  [default: 8]"),
    click.option(
        "--rate", metavar="R", type=float, help="Highest learning rate.  [default: 0.0002]"
    ),
    click.option(
        "--held-out",
        metavar="N",
        type=int,
        help=f"Samples of each kind for the report at the end.  [default: {HELD_OUT}]",
    ),
    *map(setting_option, _CACHE[:-1]),
    out=click.option(
        "-o", "--out", metavar="FOLDER", help="The adapter's folder.  [default: adapter]"
    ),
)
def adapt(given: dict[str, Any]) -> None:
    """Adapt a model to eviction.

    LoRA, by gradient, while the cache evicts. The model learns to go on from what is kept of a
    text, and to repeat it; and, with the full cache, to lose nothing. Python's documentation and
    library are the text, or --texts. A part of it is held out for the report: loss, and how often
    the likeliest token is the full cache's, with and without adapter. The budget is 0.0625 unless
    given. FOLDER is loaded with --adapter; the same call goes on after Ctrl-C or --minutes.
    """
    from namm_lab.train.adapt import AdapterTraining, TextSource, measure
    from namm_lab.train.adapt.checkpoint import AdapterFiles

    settings = adapt_settings(given)
    held_out = given.get("held_out", HELD_OUT)
    if held_out < 1:
        raise UsageError(f"held-out must be 1 or more, not {held_out}")
    out = Path(given.get("out", "adapter"))
    loaded, config = load(given)
    texts = Path(given["texts"]) if "texts" in given else None
    source = TextSource(loaded, "train", texts, settings.length)
    unseen = TextSource(loaded, "validation", texts, settings.length)
    files = AdapterFiles(out, identity(given, settings, loaded, config))
    prepare(out, files, force="force" in given)
    training = AdapterTraining(loaded.model, source, config, settings)
    tell(announced(loaded, settings, config, source, out))
    done, took = train(training, files, settings, given.get("minutes"))
    with ProgressBar("Measuring", "readings") as bar:
        rows = measure(training.adapted, unseen, config, held_out, bar.update)
    show(out, rows)
    left = "" if done == settings.steps else f" of {settings.steps}; the same call goes on"
    click.echo(f"{out}: {done} steps{left} in {took}. Use it with --adapter {out}")


def adapt_settings(given: dict[str, Any]) -> AdaptSettings:
    """Only what was given; the rest has its defaults."""
    from namm_lab.train.adapt import AdaptSettings

    chosen: dict[str, Any] = {
        name: given[name]
        for name in ("length", "steps", "batch", "rank", "rate", "seed")
        if name in given
    }
    if "losses" in given:
        chosen["losses"] = names(given["losses"])
    return AdaptSettings(**chosen)


def load(given: dict[str, Any]) -> tuple[LoadedModel, CacheConfig]:
    """The model in floats, and what its cache evicts."""
    quiet_libraries()
    from namm_lab.train.adapt import load_base
    from namm_llm.models.own_namm import cache_config_of

    name = given.get("model", DEFAULT_MODEL)
    cache = {setting: given[setting] for setting in _CACHE if setting in given}
    config = cache_config_of(name, **{"budget": BUDGET, **cache})
    return load_base(name, **model_settings(given)), config


def identity(
    given: dict[str, Any], settings: AdaptSettings, loaded: LoadedModel, config: CacheConfig
) -> dict[str, Any]:
    """What must not change when a run goes on."""
    from namm_llm.config.header import config_to_dict

    return {
        "model": loaded.fingerprint,
        "cache": config_to_dict(config),
        "texts": given.get("texts"),
        **asdict(settings),
    }


def prepare(out: Path, files: AdapterFiles, *, force: bool) -> None:
    """UsageError if the folder holds something else, or cannot be written, before any work."""
    from namm_llm.io import check_writable

    if force:
        files.remove()
    elif out.exists() and not files.checkpoint.is_file() and (out.is_file() or any(out.iterdir())):
        raise UsageError(
            f"{out} exists already: name another folder with --out, or replace it with --force."
        )
    if out.is_dir():
        check_writable(files.checkpoint)
    else:
        check_writable(out)


def announced(
    loaded: LoadedModel, settings: AdaptSettings, config: CacheConfig, source: TextSource, out: Path
) -> str:
    """What is about to happen, in one line."""
    return (
        f"Adapting {loaded.model_id} to {config.describe()}: {settings.steps} steps of "
        f"{settings.batch} samples of {2 * settings.length} tokens out of {len(source.text)} "
        f"characters. Writes {out}."
    )


def train(
    training: AdapterTraining, files: AdapterFiles, settings: AdaptSettings, most: float | None
) -> tuple[int, str]:
    """The steps done in all, and the time of this call; Ctrl-C is passed on."""
    began, done = time.perf_counter(), [0]
    end = float("inf") if most is None else began + 60 * most
    with ProgressBar("Adapting", "steps") as bar:

        def report(row: dict[str, float]) -> None:
            done[0] = int(row["step"])
            bar.update(done[0], settings.steps)
            losses = (f"{kind} {row[kind]:.3f}" for kind in settings.losses if kind in row)
            bar.note(", ".join(losses))

        try:
            steps = training.run(files, report, lambda: time.perf_counter() > end)
        except KeyboardInterrupt:
            bar.stop()
            if done[0]:
                tell(f"{files.folder} has the adapter so far; the same call goes on from it.")
            raise
    return steps, minutes(began)


def show(out: Path, rows: Sequence[HeldOut]) -> None:
    """The report as a table, and as report.json in the folder."""
    from namm_llm.io import replacing

    lines = [
        (
            row.loss,
            row.cache,
            "yes" if row.adapted else "no",
            f"{row.nats:.3f}",
            f"{row.agreement:.1%}",
            str(row.tokens),
        )
        for row in rows
    ]
    columns = ("text", "cache", "adapter", "nats/token", "same likeliest token", "tokens")
    print_table("Held-out texts", columns, lines, width=110)
    with replacing(out / "report.json") as part:
        part.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
