"""The settings of `namm_llm` as the fields of an adapter's classes.

Names, defaults, limits and help texts come from `namm_llm.settings_of`; nothing is repeated here.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from namm_llm import (
    PolicyError,
    SamplingParams,
    Setting,
    UsageError,
    make_cache_config,
    parse_budget,
    settings_of,
)

SETTINGS = {each.name: each for each in settings_of("load", "run", "cache", "sampling")}
LOAD = tuple(each.name for each in settings_of("load", "run"))
CACHE = tuple(each.name for each in settings_of("cache"))
SAMPLING = tuple(each.name for each in settings_of("sampling"))
MODEL_VARIABLE = "NAMM_MODEL"
ALIASES = {
    **{alias: each.name for each in SETTINGS.values() for alias in each.aliases},
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
    "num_ctx": "context_window",
    "n_ctx": "context_window",
}
"""Names that other integrations have for a setting."""


def default_model() -> str:
    """`$NAMM_MODEL`, else the library's default."""
    return os.environ.get(MODEL_VARIABLE) or str(SETTINGS["model"].default)


def _field(setting: Setting) -> tuple[Any, Any]:
    if setting.name == "model":
        return str, Field(default_factory=default_model, description=setting.description)
    kind: Any = Any if setting.takes_objects else setting.kind
    return kind | None if kind is not Any else Any, Field(
        default=None, description=setting.description
    )


class _Document(BaseModel):
    memory: Any = Field(
        default=None,
        description="What every question is about: a Document, its file, or a kept one's name.",
    )
    context_window: int | None = Field(
        default=None, description="Tokens that prompt and answer may have together.", ge=1
    )
    timeout: float | None = Field(
        default=None, description="Seconds after which an answer is given up.", gt=0
    )


_FIELDS: dict[str, Any] = {name: _field(setting) for name, setting in SETTINGS.items()}
# any model: the fields are generated, so a type checker cannot know them
NammFields: Any = create_model("NammFields", __base__=_Document, **_FIELDS)
NammFields.__doc__ = "The settings as fields; None is the library's default."


def plain(name: str, value: Any) -> Any:
    """A value as it can be saved and compared: paths, torch's dtypes and devices as text."""
    if isinstance(value, os.PathLike) and name != "memory":
        return os.fspath(value)
    if type(value).__module__.partition(".")[0] == "torch" and name in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return value


def canonical(given: Mapping[str, Any], known: Collection[str], owner: str) -> dict[str, Any]:
    """The values under the settings' own names. UsageError for an unknown name, or for one setting
    under two names. owner: who was given them.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        own = name if name in known else ALIASES.get(name, name)
        if own not in known:
            raise UsageError(f"{owner} has no setting {name!r}{closest(name, known)}.")
        if own in found:
            raise UsageError(f"{owner} was given {own} twice, once as {name}; give it once.")
        found[own] = plain(own, value)
    return found


def closest(name: str, known: Collection[str]) -> str:
    """`; did you mean X?`, or what there is."""
    near = get_close_matches(name, [*known, *ALIASES], n=1)
    shown = sorted(each for each in known if not each.startswith("_"))
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(shown)}"


def given(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Those of the names that have a value; the library has the defaults."""
    return {name: values[name] for name in names if values.get(name) is not None}


def check(values: Mapping[str, Any]) -> None:
    """UsageError for a value that cannot be right; loads no model and no NAMM."""
    for name, value in values.items():
        if name in SETTINGS and value is not None and not SETTINGS[name].takes_objects:
            SETTINGS[name].check(value)
    SamplingParams(**given(values, SAMPLING))
    parse_budget(values.get("budget"))
    if isinstance(policy := values.get("policy"), str) and policy not in ("full", "namm"):
        _check_policy(policy)


def _check_policy(name: str) -> None:
    """PolicyError for a name that there is not; a budget may still come with a call."""
    try:
        make_cache_config(name)
    except PolicyError:
        make_cache_config(name, budget=1024)


def of_setting(name: str, value: Any) -> Any:
    """A plain value that changes when the setting, or the file that it names, does."""
    if name in ("model", "namm") and isinstance(value, str) and Path(value).exists():
        return f"{value} {_changed(Path(value))}"
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return f"{type(value).__name__} {_content(value)}"


def _changed(path: Path) -> int:
    """When a file, or one in a folder, was last written, in nanoseconds."""
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    return max(each.stat().st_mtime_ns for each in files)


def _content(value: Any) -> str:
    """A hash of a policy, a budget or a NAMM with its numbers."""
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:16]
