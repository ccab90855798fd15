"""`Setting`: one setting as every surface shows it, and the dataclass fields that declare them.

A setting is declared once, as a field of `LoadConfig`, `CacheConfig` or `SamplingParams`. Command
line, `Runner.load`, `ManagedCache.for_model` and the adapters take name, type, default, limits and
help text from there. Imports no torch, so that `--help` stays fast.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, cast

from namm_llm.errors import UsageError

Group = Literal["load", "run", "cache", "text", "sampling"]
F = TypeVar("F", bound=Callable[..., Any])
_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a model, its cache or its answers."""

    help: str
    """One sentence for `--help`, field descriptions and docstrings."""
    name: str = ""
    """As Python writes it; the flag is the same with dashes."""
    group: Group = "load"
    """`load`: which model. `run`: how it is run. `cache`: what is evicted. `text`: as `cache`, for
    one text alone. `sampling`: how an answer is written."""
    annotation: str = ""
    """The type that Python callers may give."""
    kind: type = str
    """The plain type that a command line or a JSON field gives."""
    default: Any = None
    """For callers who give nothing; None where the value is decided later (`unset` says how)."""
    unset: str = ""
    """In words, what None means."""
    unit: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    aliases: tuple[str, ...] = ()
    """Names that other libraries have for it."""
    many: bool = False
    """Whether several texts may be given."""
    from_file: bool = False
    """Whether the command line takes the name of a file that holds the value."""
    takes_objects: bool = False
    """Whether Python callers may give more than plain values."""

    @property
    def flag(self) -> str:
        """`--budget-scope`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def default_text(self) -> str:
        """The default for people; empty where nothing is worth saying."""
        if self.unset:
            return self.unset
        if self.default is None or self.default is False or self.default == ():
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def description(self) -> str:
        """Help text and default in one line."""
        shown = f"  [default: {self.default_text}]" if self.default_text else ""
        return f"{self.help}{shown}"

    def check(self, value: Any) -> None:
        """UsageError if a plain value has the wrong type, is out of range or is no choice."""
        if value is None and self.default is None:
            return
        if self.choices and value not in self.choices:
            raise UsageError(
                f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}."
            )
        if self.kind in (int, float) and not self._is_in_range(value):
            raise UsageError(f"{self.name} must be {self._range()}, not {value!r}.")
        if self.kind is bool and not (isinstance(value, bool) or self.takes_objects):
            raise UsageError(f"{self.name} must be True or False, not {value!r}.")

    def _is_in_range(self, value: Any) -> bool:
        numbers = int if self.kind is int else (int, float)
        if not isinstance(value, numbers) or isinstance(value, bool) or not math.isfinite(value):
            return False
        least, most = _or(self.least, -math.inf), _or(self.most, math.inf)
        return least <= value <= most and (self.above is None or value > self.above)

    def _range(self) -> str:
        what = "a whole number" if self.kind is int else "a number"
        of = f"{what} of {self.unit}" if self.unit else what
        if self.above is not None:
            upto = f" and up to {self.most:g}" if self.most is not None else ""
            return f"{of} above {self.above:g}{upto}"
        if self.most is not None:
            return f"{of} from {_or(self.least, -math.inf):g} to {_number(self.most)}"
        return f"{of} from {self.least:g} on" if self.least is not None else of


def setting(help: str, default: Any = MISSING, *, offered: bool = True, **details: Any) -> Any:
    """A dataclass field that declares a setting; `details` are fields of `Setting`.

    unset given: surfaces default to None, which stands for a decision that is made later.
    """
    shown = None if default is MISSING or "unset" in details else default
    declared = Setting(help=help, default=shown, **details)
    return dataclasses.field(default=default, metadata={"setting": declared} if offered else None)


def declared_in(owner: Any, group: Group) -> tuple[Setting, ...]:
    """The settings that a dataclass declares, in order."""
    return tuple(
        _completed(field.metadata["setting"], field, group)
        for field in dataclasses.fields(owner)
        if "setting" in field.metadata
    )


def _completed(declared: Setting, field: dataclasses.Field[Any], group: Group) -> Setting:
    written = str(field.type)
    kind = next((kind for name, kind in _KINDS.items() if written.startswith(name)), str)
    return replace(
        declared,
        name=field.name,
        group=group if declared.group == "load" else declared.group,
        annotation=declared.annotation or written,
        takes_objects=bool(declared.annotation),
        kind=bool if written.startswith("bool") else kind,
        many=written.startswith("tuple[str"),
    )


def check_fields(value: Any) -> None:
    """UsageError for the first field of a settings dataclass that is out of its range."""
    for field in dataclasses.fields(value):
        if (declared := field.metadata.get("setting")) is not None:
            _completed(declared, field, "load").check(getattr(value, field.name))


def closest(name: str, known: Collection[Setting]) -> str:
    """` (did you mean X?)` for a name that is near a setting or one of its aliases; or nothing."""
    names = {other: each.name for each in known for other in (each.name, *each.aliases)}
    near = get_close_matches(name, names, n=1)
    return f" (did you mean {names[near[0]]}?)" if near else ""


def check_names(given: Collection[str], known: Collection[Setting], owner: str) -> None:
    """UsageError for the first name that is no setting. owner: who was given it."""
    names = {each.name for each in known}
    for name in given:
        if name not in names:
            hint = closest(name, known) or f"; there are {', '.join(sorted(names))}"
            raise UsageError(f"{owner} has no setting {name!r}{hint}.")


def split(given: Mapping[str, Any], *groups: Collection[Setting]) -> tuple[dict[str, Any], ...]:
    """The settings of each group, by name."""
    return tuple(
        {each.name: given[each.name] for each in group if each.name in given} for group in groups
    )


def takes_settings(owner: str, known: Collection[Setting]) -> Callable[[F], F]:
    """Decorates a function with `**settings`: its signature and docstring list them, and an unknown
    name is a UsageError.

    owner: how messages call the function.
    """

    def decorate(function: F) -> F:
        plain = inspect.signature(function)
        own = [each for each in plain.parameters.values() if each.kind is not each.VAR_KEYWORD]
        taken = {each.name for each in own}

        @functools.wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            check_names([name for name in given if name not in taken], known, owner)
            return function(*args, **given)

        more = [_parameter(each) for each in known if each.name not in taken]
        described = cast("Any", checked)
        described.__signature__ = plain.replace(parameters=[*own, *more])
        lines = "\n".join(f"    {each.name}: {each.description}" for each in known)
        described.__doc__ = f"{inspect.getdoc(function) or ''}\n\nSettings:\n{lines}\n"
        return cast("F", checked)

    return decorate


def _parameter(each: Setting) -> inspect.Parameter:
    return inspect.Parameter(
        each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.annotation
    )


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"{int(value)}"
