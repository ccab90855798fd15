"""The options of the commands, generated from `namm_llm.config`, and what they are turned into.

An option that is not given is not passed on, so every default is that of `namm_llm.config`, or of
the command (`command(..., max_tokens=1024)`).
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namm_llm.config import (
    CACHE,
    DEFAULT_MODEL,
    LOAD,
    RUN,
    SAMPLING,
    Group,
    SamplingParams,
    Setting,
    settings_of,
    split,
)
from namm_llm.errors import UsageError

if TYPE_CHECKING:
    from namm_llm.runner import Runner

_SECTIONS: dict[Group, str] = {
    "load": "Model",
    "run": "Model",
    "cache": "Cache",
    "sampling": "Sampling",
}
_OWN, _OUTPUT = "Options", "Output"
_EVERY = {each.name: each for each in (*LOAD, *RUN, *CACHE, *SAMPLING)}


@dataclass(frozen=True)
class Settings:
    """The shared options of one call; only what the user gave."""

    runner: dict[str, Any]
    """Arguments of `Runner.load`."""
    sampling: dict[str, Any]
    """Fields of `SamplingParams`."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What this command samples with unless the user says otherwise."""
    as_json: bool = False
    stats: bool = False

    @property
    def model(self) -> str:
        """The name of the model: the user's, or the best one that is here."""
        given = self.runner.get("model")
        return str(given) if given is not None else default_model()

    def params(self) -> SamplingParams:
        """How answers are sampled. UsageError for a value that is out of range."""
        return SamplingParams(**{**self.defaults, **self.sampling})

    def load(self) -> Runner:
        """The runner; one line on stderr says which model nobody named."""
        quiet_libraries()
        from namm_llm.models.own_namm import own_namm
        from namm_llm.runner import Runner

        runner = Runner.load(**{**self.runner, "model": self.model})
        if "model" not in self.runner:
            click.echo(_about_default(self.model), err=True)
        if "budget" in self.runner and "policy" not in self.runner:
            other = "--policy chooses another way"
            if runner.config.policy.name == "namm":
                own = own_namm(self.model)
                shown = "/".join(own.parts[-2:]) if own is not None else ""
                other = f"from {self.runner.get('namm') or shown}; {other}"
            else:
                other += "; `namm-llm train distil` makes a NAMM for this model"
            click.echo(f"Tokens are chosen by: {runner.config.describe()} ({other}).", err=True)
        return runner


def default_model() -> str:
    """What a command runs on when nobody names a model: the best one that is pulled, or else the
    bundled one.
    """
    from namm_llm.models.catalogue import best_here

    best = best_here()
    return DEFAULT_MODEL if best is None else best.name


def _about_default(name: str) -> str:
    if name != DEFAULT_MODEL:
        return f"{name} is used, the best model that is pulled; --model names another."
    return (
        f"{DEFAULT_MODEL}: a tiny bundled model that looks facts up in long documents, and no more "
        "than that. `namm-llm models pull smollm2-135m` fetches one that answers (93 MB), or name "
        "one with --model."
    )


class SettingOption(click.Option):
    """An option with the heading under which help shows it."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help groups the options: its own, model, cache, sampling, output."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {_OWN: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", _OWN), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def setting_option(name: str, help: str | None = None, **changes: Any) -> Callable[..., Any]:
    """The option of one setting. help, changes: in the place of what the setting says."""
    each = _EVERY[name]
    kind: dict[str, Any] = {"metavar": each.metavar, "type": each.kind, "multiple": each.many}
    flag = each.flag
    if each.kind is bool:
        kind = {"is_flag": True, "default": None}
        flag += f"/--no-{name.replace('_', '-')}" if each.default is None else ""
    if each.from_file:
        kind["callback"] = _contents
    more = "  May be repeated." if each.many else ""
    return click.option(
        flag,
        name,
        cls=SettingOption,
        section=_SECTIONS[each.group],
        **{**kind, "help": help or each.description + more, **changes},
    )


def _contents(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The text of the file that an option names; JSON stands for itself."""
    if value is None or value.lstrip().startswith("{"):
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{option.opts[0]} {value}: the file cannot be read ({reason})."
        ) from error


def _output_options() -> tuple[Callable[..., Any], ...]:
    make = functools.partial(click.option, cls=SettingOption, section=_OUTPUT, is_flag=True)
    return (
        make("--json", "as_json", help="One JSON object per answer on stdout."),
        make("--stats", help="Speed and cache statistics on stderr."),
    )


def command(
    *groups: Group, name: str | None = None, output: bool = True, **defaults: Any
) -> Callable[[Callable[..., None]], click.Command]:
    """A command with the options of these groups of settings, which come as one `Settings`.

    defaults: of settings, for this command; None where it decides later.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def with_settings(**values: Any) -> None:
            settings = _taken(values, settings_of(*groups), defaults)
            if output:
                shown = {name: values.pop(name) for name in ("as_json", "stats")}
                settings = replace(settings, **shown)
            function(settings=settings, **values)

        options = [_option_for(each, defaults) for each in settings_of(*groups)]
        options += _output_options() if output else ()
        for option in reversed(options):
            with_settings = option(with_settings)
        return click.command(name, cls=SectionedCommand)(with_settings)

    return decorate


def _option_for(each: Setting, defaults: Mapping[str, Any]) -> Callable[..., Any]:
    if each.name == "model":
        what = "GGUF file, folder, Hugging Face id or a name of `namm-llm models list`."
        return setting_option(
            each.name, f"{what}  [default: the best that is pulled, else {DEFAULT_MODEL}]"
        )
    if each.name not in defaults:
        return setting_option(each.name)
    return setting_option(each.name, f"{each.help}  [default: {defaults[each.name]}]")


def _taken(
    values: dict[str, Any], known: tuple[Setting, ...], defaults: Mapping[str, Any]
) -> Settings:
    """The shared options, taken out of all values of a call."""
    given: dict[str, dict[str, Any]] = {group: {} for group in _SECTIONS}
    for each in known:
        value = values.pop(each.name)
        if value is not None and value != ():
            given[each.group][each.name] = value
    own = {name: value for name, value in defaults.items() if not isinstance(value, str)}
    sampling, run = split(own, SAMPLING, RUN)
    return Settings(
        runner={**run, **given["load"], **given["run"], **given["cache"]},
        sampling=given["sampling"],
        defaults=sampling,
    )


def quiet_libraries() -> None:
    """Loading bars and advice of the libraries below us stay off stderr; must run before they are
    imported.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if lively() else "1")
    warnings.filterwarnings("ignore", "Cannot disable progress bars")  # those of downloads stay


def lively() -> bool:
    """Whether stderr is a terminal on which something may move and shine."""
    return (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
