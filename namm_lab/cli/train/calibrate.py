"""`namm-llm train calibrate`: another model's NAMM, fitted to this one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from namm_lab.cli.train.files import new_file
from namm_lab.cli.train.options import LENGTH_OPTION, command, minutes, tell
from namm_lab.cli.train.source import LENGTHS, load, source_of
from namm_llm import UsageError
from namm_llm.cli.progress import ProgressBar

if TYPE_CHECKING:
    from namm_lab.train.sample_source import SampleSource
    from namm_llm import Namm

DOCUMENTS = 8
CALIBRATE_ON = "fact"
"""A task whose documents are mostly prose, some code, with statements between."""


@command(
    "calibrate",
    click.option("--namm", metavar="FILE", help="The NAMM to fit to the model.", required=True),
    click.option(
        "--length", metavar="N,N", help=f"{LENGTH_OPTION}  [default: {LENGTHS['calibrate']}]"
    ),
    click.option(
        "--documents", metavar="N", type=int, help=f"Documents to read.  [default: {DOCUMENTS}]"
    ),
)
def calibrate(given: dict[str, Any]) -> None:
    """Fit another model's NAMM to this one.

    Reads text with the model and estimates the means and variances of the NAMM's features anew; the
    rest of the NAMM stays.
    """
    from namm_llm import Namm

    out = new_file(given)
    namm = Namm.load(given["namm"])
    loaded = load(given)
    began = time.perf_counter()
    source = source_of(given, loaded, "calibrate")
    fitted = fit(
        source, namm, given.get("documents", DOCUMENTS), given.get("seed", 0), given.get("interval")
    )
    fitted.save(out)
    click.echo(
        f"{out}: {given['namm']} calibrated for {loaded.model_id} in {minutes(began)}. "
        f"Use it with --namm {out}"
    )


def fit(source: SampleSource, namm: Namm, documents: int, seed: int, interval: int | None) -> Namm:
    """The NAMM with the statistics that its features have with this model."""
    from namm_lab.train.calibration import calibrate as calibrate_namm

    if documents < 1:
        raise UsageError(f"calibrating needs 1 document or more, not {documents}")
    read = source.documents(CALIBRATE_ON, seed, documents)
    tell(
        f"Calibrating for {source.loaded.model_id}: reads {sum(map(len, read))} tokens in "
        f"{len(read)} documents."
    )
    chosen = {} if interval is None else {"interval": interval}
    with ProgressBar("Calibrating", "documents") as bar:
        return calibrate_namm(
            source.loaded.model,
            namm,
            read,
            on_done=lambda done: bar.update(done, len(read)),
            **chosen,
        )
