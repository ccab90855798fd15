"""The fields that `ChatNamm` and `NammLLM` share, and what they are turned into: a runner and
sampling parameters.

No default is written here: what is not given is not passed on. Nothing is loaded before the first
question.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC
from difflib import get_close_matches
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import Self

from langchain_namm.answering import Session
from langchain_namm.runners import RunnerPool
from namm_llm.version import __version__

LOADING = (
    "model",
    "quantization",
    "device",
    "dtype",
    "revision",
    "local_files_only",
    "trust_remote_code",
    "chunk",
    "prefix_caches",
)
CACHE = (
    "policy",
    "budget",
    "namm",
    "interval",
    "budget_scope",
    "sinks",
    "protect_recent",
    "kv_bits",
)
SAMPLING = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "json_schema",
    "regex",
    "grammar",
)
FIELDS = (*LOADING, *CACHE, *SAMPLING, "memory")
OTHER_NAMES = {
    "model_name": "model",
    "model_id": "model",
    "model_path": "model",
    "device_map": "device",
    "torch_dtype": "dtype",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
}
# what LangChain and its users pass to every model, and what has no meaning for a local one
_KNOWN = {
    "ls_structured_output_format",
    "strict",
    "parallel_tool_calls",
    "response_format",
    "stream",
    "stream_usage",
    "tags",
    "metadata",
    "run_name",
    "run_id",
}


class NammSettings(BaseLanguageModel[Any], ABC):
    """model: a bundled model, a folder or a Hugging Face id; `$NAMM_MODEL` if it is not given.
    quantization .. prefix_caches, policy .. kv_bits: as of `namm_llm.Runner.load`. max_tokens ..
    grammar: as of `namm_llm.SamplingParams`. stop: texts that end an answer. memory: a `Document`,
    or the path of a saved one, that every question is about. Every field can be given for a single
    call too. api_key, timeout, max_retries, streaming: accepted because all models take them, and
    without meaning here.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model: str = Field(default_factory=lambda: os.environ.get("NAMM_MODEL", "namm-tiny"))
    quantization: str | None = None
    device: Any = None
    dtype: Any = None
    revision: str | None = None
    local_files_only: bool | None = None
    trust_remote_code: bool | None = None
    chunk: int | None = None
    prefix_caches: int | None = None
    policy: Any = None
    budget: Any = None
    namm: Any = None
    interval: int | None = None
    budget_scope: str | None = None
    sinks: int | None = None
    protect_recent: int | None = None
    kv_bits: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    json_schema: Any = None
    regex: str | None = None
    grammar: str | None = None
    memory: Any = None
    api_key: Any = Field(default=None, exclude=True, repr=False)
    timeout: Any = Field(default=None, exclude=True, repr=False)
    max_retries: Any = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    _runners: RunnerPool = PrivateAttr(default_factory=RunnerPool)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = {OTHER_NAMES.get(name, name): value for name, value in values.items()}
        _warn_unknown(cls, set(values) - set(cls.model_fields) - {"callbacks"})
        if isinstance(values.get("model"), os.PathLike):
            values["model"] = os.fspath(values["model"])
        if isinstance(values.get("stop"), str):
            values["stop"] = [values["stop"]]
        return values

    @model_validator(mode="after")
    def _namm_version(self) -> Self:
        self._add_version("langchain-namm", __version__)
        return self

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        private = {
            name: value
            for name, value in (state["__pydantic_private__"] or {}).items()
            if name != "_runners"
        }
        return {
            **state,
            "__pydantic_private__": {**private, "_runners": RunnerPool()},
        }  # weights are loaded again where it arrives

    # -- settings of one call ----------------------------------------------------------------------
    # -------------------------------

    def _folded(self, given: dict[str, Any]) -> Self:
        """With the settings of one call, which are taken out of `given`; what is no setting is
        warned of.
        """
        for name in [name for name in given if name in OTHER_NAMES]:
            given[OTHER_NAMES[name]] = given.pop(name)
        changes = {name: given.pop(name) for name in list(given) if name in FIELDS}
        _warn_unknown(type(self), set(given) - _KNOWN)
        return self.model_copy(update=changes) if changes else self

    def _stops(self, stop: list[str] | None) -> list[str]:
        """Those of the fields and those of one call."""
        return list(
            dict.fromkeys([*(self.stop or ()), *([stop] if isinstance(stop, str) else stop or ())])
        )

    def _answering(self, stop: list[str] | None) -> Session:
        """What answers: the runner or the memory of these settings, with the sampling parameters.
        Loads the model if need be.
        """
        sampling = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        return self._runners.answering(
            self._given(LOADING),
            self._given(CACHE),
            self.memory,
            {**sampling, "stop": self._stops(stop)},
        )

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    # -- what LangChain wants to know
    # ---------------------------------------------------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: LangChain's caches keep answers by it."""
        return {
            **{name: getattr(self, name) for name in FIELDS},
            "stop": self.stop,
            "version": __version__,
        }

    def _tracing(self, kind: str, stop: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
        """For `_get_ls_params`."""
        own = {OTHER_NAMES.get(name, name): value for name, value in given.items()}
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
        return self._answering(None).runner.encode(text)

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text, from the model's own tokenizer."""
        return len(self.get_token_ids(text))


def _warn_unknown(cls: type[BaseModel], names: set[str]) -> None:
    for name in sorted(names):
        close = get_close_matches(name, [*cls.model_fields, *OTHER_NAMES], n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        warnings.warn(
            f"{cls.__name__} knows no {name!r}{hint}; it is ignored.", UserWarning, stacklevel=4
        )
