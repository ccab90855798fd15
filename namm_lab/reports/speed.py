"""`python -m namm_lab.reports speed`: every measurement of docs/performance.md in order of
importance, each with the minutes that it takes.

What is in the files is not measured again, so a list that was stopped goes on where it stopped.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click

from namm_lab.bench import KEY, Benchmark, run_benchmark
from namm_lab.bench.rows import ROOT
from namm_lab.reports.peers.comparison import compare, plan_of
from namm_lab.reports.peers.contender import PRESSES
from namm_lab.reports.results import RESULTS
from namm_lab.rows import RowFile
from namm_llm import NammError

NAMM = str(ROOT / "namm_llm/models/namm-tiny/namm.safetensors")
CHUNKS = ("transformers",)  # the reference alone
OTHERS = (
    "transformers-whole",
    "transformers-generate",
    "transformers-fp8",
    "transformers-quanto",
    "transformers-hqq",
)


@dataclass(frozen=True)
class Step:
    """One measurement of the list."""

    name: str
    minutes: float
    """On two quiet cores, from the sums of products that it needs at 90 GFLOP/s (100m and 1b) or 40
    (tiny, whose matrices are small)."""
    plan: Benchmark
    kvpress: bool = False
    """Whether it is beside kvpress' presses."""


def _ours(
    shape: str,
    lengths: tuple[int, ...],
    *tasks: str,
    peers: tuple[str, ...] = CHUNKS,
    **more: object,
) -> Benchmark:
    """The NAMM that is shipped; its parameters do not change what is computed."""
    return Benchmark(
        shape=shape,
        lengths=lengths,
        tasks=tasks,
        peers=peers,
        policies=("namm",),
        namm=NAMM,
        **more,
    )  # type: ignore[arg-type]


def _beside(length: int, task: str) -> Benchmark:
    return plan_of("100m", lengths=(length,), tasks=(task,), policies=("namm",), namm=NAMM)


STEPS = (
    Step("prefill", 10.5, _ours("100m", (16_000,), "prefill")),
    # the layers are alike, so two of them show the share of sixteen; what is not in a layer is the
    # head, on one token of a chunk
    Step(
        "share-1b",
        2.5,
        _ours("1b", (16_000,), "prefill", peers=(), layers=2, dtype="float32", runs=3),
    ),
    Step("kvpress-prefill", 4, _beside(4000, "prefill"), kvpress=True),
    Step("kvpress-memory", 2.5, _beside(8000, "memory"), kvpress=True),
    Step("decode", 7, _ours("100m", (32_000,), "decode", decoded=32)),
    Step(
        "lengths",
        6,
        _ours("tiny", (2000, 8000, 32_000, 64_000, 128_000), "memory", peers=(), budgets=("2048",)),
    ),
    Step("lengths-full", 1.5, _ours("tiny", (2000, 8000, 32_000), "memory", budgets=("2048",))),
    Step("batch", 1, _ours("tiny", (4000,), "prefill", "decode", batches=(1, 4), decoded=32)),
    Step(
        "kv-bits",
        1.5,
        _ours("100m", (2000,), "prefill", "decode", kv_bits=("none", "8"), decoded=32),
    ),
    Step(
        "weights",
        3,
        _ours("100m", (2000,), "prefill", "decode", quantizations=("nf4", "int8"), decoded=32),
    ),
    Step("others", 3, _ours("100m", (2000,), "prefill", "decode", peers=OTHERS, decoded=32)),
    Step("memory", 6.5, _ours("100m", (8000, 32_000), "memory", budgets=("2048",))),
)
NAMES = tuple(step.name for step in STEPS)
SMALL = {"layers": 1, "interval": 64, "decoded": 2, "runs": 2}


def smaller(step: Step) -> Step:
    """The same on one layer and a few hundred tokens."""
    lengths = tuple(range(200, 200 + 50 * len(step.plan.lengths), 50))
    return replace(
        step, minutes=0.2, plan=replace(step.plan, shape="tiny", lengths=lengths, **SMALL)
    )  # type: ignore[arg-type]


@click.command("speed")
@click.option(
    "--step",
    "names",
    multiple=True,
    type=click.Choice(NAMES),
    metavar="NAME",
    help=f"Only these: {', '.join(NAMES)}.",
)
@click.option(
    "--again",
    multiple=True,
    type=click.Choice(NAMES),
    metavar="NAME",
    help="Measure these anew; new rows replace old ones.",
)
@click.option("--minutes", type=float, help="Begin no step that would end later than this.")
@click.option(
    "--small",
    is_flag=True,
    help="All of it on one layer and a few hundred tokens, to see that it runs; nothing is kept.",
)
def speed(
    names: tuple[str, ...], again: tuple[str, ...], minutes: float | None, small: bool
) -> None:
    """Measure speed and memory on this machine, which should do nothing else."""
    steps = [step for step in STEPS if not names or step.name in names]
    began = time.monotonic()
    click.echo(
        f"{len(steps)} steps, about {sum(step.minutes for step in steps):.0f} minutes where "
        "nothing has been measured yet",
        err=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) if small else RESULTS
        for number, step in enumerate(steps, 1):
            click.echo(
                f"{number} of {len(steps)}: {step.name}, about {step.minutes:g} minutes", err=True
            )
            spent = (time.monotonic() - began) / 60
            if minutes is not None and spent + step.minutes > minutes:
                click.echo(f"  left out: {spent:.1f} of {minutes:g} minutes are spent", err=True)
                continue
            try:
                _measure(smaller(step) if small else step, results, again=step.name in again)
            except NammError as error:
                click.echo(
                    f"  not measured: {error}", err=True
                )  # the others are worth having without it
            click.echo(f"  after {(time.monotonic() - began) / 60:.1f} minutes", err=True)


def _measure(step: Step, results: Path, *, again: bool) -> None:
    def note(text: str) -> None:
        click.echo(f"  {text}", err=True)

    for line in step.plan.left_out():
        note(line)
    if step.kvpress:
        compare(step.plan, PRESSES, results / "peers.jsonl", note, again=again)
    else:
        run_benchmark(
            step.plan, file=RowFile(results / "speed.jsonl", KEY), on_note=note, again=again
        )
