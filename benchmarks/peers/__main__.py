"""`python -m benchmarks.peers`: kvpress, transformers and ours in turn, at the same kept fraction; see `make bench-peers`."""

from __future__ import annotations

import tempfile

import click

from benchmarks.peers.side import PRESSES, PYTHON, Kvpress, KvpressSide
from benchmarks.rows import RESULTS
from namm_llm import BenchFile, Benchmark, NammError, run_benchmark, save_model


@click.command()
@click.option("--shape", default="100m", show_default=True, help="Random weights, saved once and loaded by all.")
@click.option("--lengths", default="8000", show_default=True)
@click.option("--budget", default="0.25", show_default=True, help="Share of the tokens that stays.")
@click.option("--policies", default="knorm,reread", show_default=True, help="Ours.")
@click.option("--presses", default=",".join(PRESSES), show_default=True)
@click.option("--tasks", default="memory,prefill", show_default=True)
@click.option("--runs", default=5, show_default=True)
@click.option("--decoded", default=64, show_default=True)
@click.option("--file", default="peers", show_default=True, help="Rows go to benchmarks/results/NAME.jsonl.")
def main(shape: str, lengths: str, budget: str, policies: str, presses: str, tasks: str, runs: int, decoded: int, file: str) -> None:
    """Speed and peak memory beside kvpress, which reads the whole prompt in one forward call and judges once, at its end."""
    if not PYTHON.exists():
        raise click.ClickException("kvpress has no environment yet; make it with: make bench-peers")
    plan = Benchmark(
        shape=shape,
        lengths=tuple(int(length) for length in lengths.split(",")),
        budgets=(budget,),
        policies=tuple(policies.split(",")),
        tasks=tuple(tasks.split(",")),
        peers=("transformers-whole",),
        compete="head",  # as kvpress does it
        runs=runs,
        decoded=decoded,
    )
    with tempfile.TemporaryDirectory() as folder:
        dtype = save_model(plan, folder)
        kvpress = Kvpress(folder, dtype, str(plan.torch_device()))
        try:
            others = [KvpressSide(kvpress, press, budget) for press in presses.split(",")]
            rows = run_benchmark(plan, file=BenchFile(RESULTS / f"{file}.jsonl"), on_note=_note, others=others)
        except NammError as error:
            raise click.ClickException(str(error)) from error
        finally:
            kvpress.close()
    for row in rows:
        name = f"{row['task']} {row['length']} {row['side']} {row['policy']} {row['budget'] or ''}"
        click.echo(f"{name}: {row['peak_nbytes'] / 1e9:.2f} GB" if row["task"] == "memory" else f"{name}: {row['seconds']:.2f} s")
    click.echo(f"added to {RESULTS.name}/{file}.jsonl")


def _note(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
