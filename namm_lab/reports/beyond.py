"""What a long text does to a cache of a fixed budget: the perplexity of the same last tokens with
more and more text before them, and how old the retained tokens are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch
from torch import Tensor

from namm_lab.reports.results import add_rows
from namm_lab.rows import Row
from namm_llm import Runner, UsageError, kept_entries
from namm_llm.cache import ManagedCache
from namm_llm.config import CacheConfig
from namm_llm.engine import forward

CHUNK = 512
QUARTERS = 4


@click.command("beyond")
@click.argument("text", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option(
    "--policy", "policies", multiple=True, default=("replay", "streaming_llm"), show_default=True
)
@click.option("--budget", default="2048", show_default=True)
@click.option(
    "--protect-recent",
    multiple=True,
    type=int,
    help="May be repeated; the policy's own number, if left out.",
)
@click.option(
    "--length",
    "lengths",
    multiple=True,
    type=int,
    default=(6000, 16_000, 32_000),
    show_default=True,
    help="Tokens of the text.",
)
@click.option("--last", default=1000, show_default=True, help="Tokens that are measured.")
def beyond(**settings: object) -> None:
    """Perplexity of the same last tokens of TEXT with more and more text before them, in a fixed
    budget, and how old the retained tokens are; appended row by row.
    """
    for row in compare(**settings):  # type: ignore[arg-type]
        ages = " ".join(f"{row[f'quarter {number}']:.2f}" for number in range(1, QUARTERS + 1))
        click.echo(
            f"{row['policy']}, newest {row['protect_recent']}, {row['length']} tokens: "
            f"perplexity {row['perplexity']:.2f}; held of each quarter {ages}"
        )
        add_rows("beyond", [row])


def compare(
    *,
    model: str,
    text: str,
    policies: Sequence[str],
    budget: str,
    protect_recent: Sequence[int],
    lengths: Sequence[int],
    last: int,
) -> Iterator[Row]:
    """One row for each policy, number of protected newest tokens and length.

    text: a file; it is cut at the greatest length, and a smaller one begins later. last: tokens at
    its end whose perplexity is measured.
    """
    if min(lengths) <= last:
        raise UsageError(f"a length is more than the {last} tokens that are measured.")
    runner = Runner.load(model)
    ids = runner.encode(Path(text).read_text(encoding="utf-8"))[: max(lengths)]
    if len(ids) < max(lengths):
        raise UsageError(f"{text} has {len(ids)} tokens, fewer than {max(lengths)}.")
    for policy in policies:
        for newest in protect_recent or (None,):
            config = runner.with_cache(policy, budget=budget, protect_recent=newest).config
            for length in lengths:
                found = measure(runner, config, ids[-length:], last)
                setting = {"text": Path(text).name, "policy": policy, "budget": budget}
                yield {
                    "model": runner.model_id,
                    **setting,
                    "protect_recent": newest,
                    **found,
                    "last": last,
                }


def measure(runner: Runner, config: CacheConfig, ids: Sequence[int], last: int) -> Row:
    """Perplexity of the `last` ids, and which share of the entries that are held before them is of
    each quarter of the text so far, oldest first.
    """
    cache = ManagedCache.for_model(runner.loaded.model, config)
    for _ in forward.prefill(runner.loaded.model, cache, ids[:-last], chunk=CHUNK):
        pass
    shares = quarters(kept_entries(cache))
    scores = forward.score(runner.loaded.model, cache, torch.tensor([ids[-last:]]), chunk=CHUNK)
    row: Row = {"length": len(ids), "perplexity": math.exp(-float(scores.mean()))}
    return row | {f"quarter {number}": share for number, share in enumerate(shares, 1)}


def quarters(held: Tensor) -> list[float]:
    """Of `[layers, heads, tokens]`, as `kept_entries` gives it."""
    counts = held.flatten(0, 1).sum(0).float()
    return [float(part.sum() / counts.sum()) for part in counts.tensor_split(QUARTERS)]
