"""Options that the commands share, and what they are turned into.

No default is written here: an option that is not given is not passed on, so the defaults are those
of `Runner.load` and `SamplingParams` (torch-free `--help` shows them as text, which a test compares
with the real ones).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from namm_llm.config import SamplingParams
    from namm_llm.runner import Runner

BUNDLED = "namm-tiny"

MODEL_OPTION = click.option(
    "--model",
    metavar="NAME",
    help=f"Folder or Hugging Face id of a Llama-like model.  [default: {BUNDLED}]",
)
WEIGHTS_OPTIONS = (
    click.option("--quantization", metavar="Q", help="nf4, fp4 or int8 weights (bitsandbytes)."),
    click.option("--device", metavar="D", help="auto, cpu, cuda or mps.  [default: auto]"),
    click.option(
        "--dtype", metavar="T", help="auto, float32, bfloat16 or float16.  [default: auto]"
    ),
)
CACHE_OPTIONS = (
    click.option(
        "--policy",
        metavar="NAME",
        help="How the tokens that stay are chosen; all stay without policy and budget.",
    ),
    click.option(
        "--budget",
        metavar="B",
        help="What may stay: a share (0.25), tokens per head (2048), bytes (2GiB).",
    ),
    click.option(
        "--namm", metavar="FILE", help="NAMM file for --policy namm, if not the model's own."
    ),
    click.option(
        "--probe",
        "probes",
        metavar="TEXT",
        multiple=True,
        help="A text that the NAMM asks with; may be repeated.  [default: the NAMM's own]",
    ),
    click.option(
        "--interval", metavar="N", type=int, help="Tokens between two evictions.  [default: 512]"
    ),
    click.option(
        "--budget-scope",
        metavar="WHO",
        help="head, layer or model: whose tokens share a budget.  [default: the policy's]",
    ),
    click.option(
        "--kv-bits",
        metavar="N",
        type=int,
        help="8: keys and values are kept as 8-bit numbers.  [default: as computed]",
    ),
)
SAMPLING_OPTIONS = (
    click.option(
        "--max-tokens", metavar="N", type=int, help="Most tokens of an answer.  [default: 256]"
    ),
    click.option(
        "--temperature",
        metavar="T",
        type=float,
        help="0 always takes the likeliest token.  [default: 0]",
    ),
    click.option("--seed", metavar="N", type=int, help="Makes sampling repeatable."),
)
OUTPUT_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="One JSON object per answer on stdout."),
    click.option("--stats", is_flag=True, help="Speed and cache statistics on stderr."),
)


@dataclass(frozen=True)
class Settings:
    """The shared options of one call; only what the user gave."""

    runner: dict[str, Any]
    sampling: dict[str, Any]
    as_json: bool = False
    stats: bool = False

    def params(self) -> SamplingParams:
        from namm_llm.config import SamplingParams

        return SamplingParams(**self.sampling)

    def load(self) -> Runner:
        """The runner; one line on stderr says what the bundled model is."""
        quiet_libraries()
        from namm_llm.runner import Runner

        runner = Runner.load(**self.runner)
        if self.runner.get("model", BUNDLED) == BUNDLED:
            click.echo(
                f"{BUNDLED}: a tiny bundled model that looks facts up in long documents, and no more than that. "
                "Name a real one with --model, such as meta-llama/Llama-3.2-1B-Instruct.",
                err=True,
            )
        if "budget" in self.runner and "policy" not in self.runner:
            other = "--policy chooses another way"
            if runner.eviction.policy.name != "namm":
                other += "; `namm-llm train distil` makes a NAMM for this model"
            click.echo(f"Tokens are chosen by: {runner.eviction.describe()} ({other}).", err=True)
        return runner


def quiet_libraries() -> None:
    """Loading bars and advice of the libraries below us stay off stderr; must run before they are
    imported.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if lively() else "1")


def lively() -> bool:
    """Whether stderr is a terminal on which something may move and shine."""
    return (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def shared_options(
    *, cache: bool = True, sampling: bool = True, output: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the shared options to a command, which gets them as one `Settings`."""
    before, after = (CACHE_OPTIONS if cache else ()), (SAMPLING_OPTIONS if sampling else ())
    options = (MODEL_OPTION, *before, *WEIGHTS_OPTIONS, *after, *(OUTPUT_OPTIONS if output else ()))
    of_runner = (
        "model",
        "quantization",
        "device",
        "dtype",
        *(
            ("policy", "budget", "namm", "probes", "interval", "budget_scope", "kv_bits")
            if cache
            else ()
        ),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_settings(**values: Any) -> None:
            def given(names: tuple[str, ...]) -> dict[str, Any]:
                return {
                    name: value
                    for name in names
                    if (value := values.pop(name, None)) not in (None, ())
                }

            settings = Settings(
                runner=given(of_runner),
                sampling=given(("max_tokens", "temperature", "seed")),
                as_json=values.pop("as_json", False),
                stats=values.pop("stats", False),
            )
            command(settings=settings, **values)

        for option in reversed(options):
            with_settings = option(with_settings)
        return with_settings

    return decorate
