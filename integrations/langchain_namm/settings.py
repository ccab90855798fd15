"""`NammSettings`: the fields that `ChatNamm` and `NammLLM` share, and what LangChain asks of them.

The fields come from `namm_integrations.settings`. Nothing is loaded before the first question.
"""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from namm_integrations.call import Call
from namm_integrations.memories import fingerprint_of, is_document
from namm_integrations.runners import RunnerPool
from namm_integrations.settings import (
    ALIASES,
    SETTINGS,
    NammFields,
    canonical,
    check,
    closest,
    of_setting,
)
from pydantic import ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import Self

from namm_llm import UsageError, __version__

FIELDS = (*SETTINGS, "memory", "context_window", "timeout")
# what LangChain and its users pass to every model, and what has no meaning for a local one
_KNOWN = frozenset(
    "ls_structured_output_format strict stream stream_usage tags metadata run_name run_id".split()
)


class NammSettings(NammFields, BaseLanguageModel[Any], ABC):
    """All settings of `namm_llm` as fields; None is the library's default.

    model: a bundled model, a folder or a Hugging Face id; `$NAMM_MODEL` if it is not given. memory:
    a `Document`, the file of one, or the name of a kept one, that every question is about. Every
    field can be given for a single call too. api_key, max_retries, streaming: accepted because all
    models take them, and without meaning here. Raises UsageError for an unknown name or a value
    that cannot be right.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    stop: list[str] | None = Field(default=None, description=SETTINGS["stop"].description)
    api_key: Any = Field(default=None, exclude=True, repr=False)
    max_retries: Any = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    _runners: RunnerPool = PrivateAttr(default_factory=RunnerPool)

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = canonical(values, {*cls.model_fields, "callbacks"}, cls.__name__)
        if isinstance(values.get("stop"), str):
            values["stop"] = [values["stop"]]
        check(values)
        is_document(values.get("memory"))
        return values

    @model_validator(mode="after")
    def _namm_version(self) -> Self:
        self._add_version("namm-llm", __version__)
        return self

    def __getstate__(self) -> dict[Any, Any]:
        if is_document(self.memory):
            raise UsageError(
                "a Document that is in use cannot be saved with its model; save it to a file and "
                "give the model the file."
            )
        return super().__getstate__()

    # -- settings of one call ----------------------------------------------------------------------

    @staticmethod
    def _is_setting(name: str) -> bool:
        return ALIASES.get(name, name) in FIELDS

    def _folded(self, given: dict[str, Any]) -> Self:
        """With the settings of one call, which are taken out of `given`; what is no setting is
        warned of.
        """
        own = {name: given.pop(name) for name in list(given) if self._is_setting(name)}
        for name in sorted(set(given) - _KNOWN):
            warnings.warn(
                f"{type(self).__name__} has no setting {name!r}{closest(name, FIELDS)}; it is "
                "ignored.",
                UserWarning,
                stacklevel=3,
            )
        changes = canonical(own, FIELDS, f"a call of {type(self).__name__}")
        return self.model_copy(update=changes) if changes else self

    def _stops(self, stop: list[str] | str | None) -> list[str]:
        """Those of the fields and those of one call."""
        own = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        return list(dict.fromkeys([*own, *([stop] if isinstance(stop, str) else stop or ())]))

    def _call(self, stop: list[str] | None = None) -> Call:
        """Who answers, with the sampling parameters. Loads the model if need be."""
        values = {name: getattr(self, name) for name in FIELDS}
        return Call.of(self._runners, {**values, "stop": self._stops(stop)})

    # -- what LangChain wants to know --------------------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: LangChain's caches keep answers by it."""
        values = {name: of_setting(name, getattr(self, name)) for name in SETTINGS}
        memory = None if self.memory is None else fingerprint_of(self.memory)
        return {**values, "memory": memory, "stop": self.stop, "version": __version__}

    def _tracing(
        self, kind: str, stop: list[str] | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """For `_get_ls_params`."""
        own = {ALIASES.get(name, name): value for name, value in given.items()}
        found = {
            name: own.get(name, getattr(self, name))
            for name in ("model", "temperature", "max_tokens")
        }
        named = {"ls_provider": "namm", "ls_model_type": kind, "ls_model_name": str(found["model"])}
        named |= {
            f"ls_{name}": value
            for name in ("temperature", "max_tokens")
            if (value := found[name]) is not None
        }
        return named | ({"ls_stop": stops} if (stops := self._stops(stop)) else {})

    def get_token_ids(self, text: str) -> list[int]:
        """The ids of a text and nothing else, from the model's own tokenizer."""
        return self._call().runner.encode(text)

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text, from the model's own tokenizer."""
        return len(self.get_token_ids(text))
