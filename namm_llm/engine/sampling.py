"""How the next token is chosen from the logits of one sequence.

Each sequence has its own random generator, so that an answer does not depend on what else runs in
its batch. Works on logits `[V]` where they are: the host never waits for a token here. Knows
nothing about text, batches or the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from namm_llm.errors import UsageError

CONSTRAINTS = ("json_schema", "regex", "grammar")


@dataclass(frozen=True)
class SamplingParams:
    """max_tokens: most tokens of an answer. temperature: 0 always takes the likeliest token. top_k,
    top_p, min_p: leave only the likely tokens to chance; None for no limit. repetition_penalty:
    above 1 disfavours tokens that the prompt or the answer holds already (not those of a document
    read before). seed: makes sampling repeatable. stop: texts that end the answer and are not part
    of it.

    json_schema (a mapping or its JSON text), regex, grammar (Lark, as llguidance reads it): what
    the answer must be, at most one of them; needs the extra `structured`. Objects have the
    properties that the schema names, and no others unless it allows them. JSON is brought to its
    end before `max_tokens` where that is enough for any whole answer; what is cut has the finish
    reason `length` as always.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _texts(self.stop))
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", _json_text(self.json_schema))
        if len(given := [name for name in CONSTRAINTS if getattr(self, name) is not None]) > 1:
            raise UsageError(
                f"{given[0]} and {given[1]} cannot both be followed; give one of them."
            )
        self._require(
            "max_tokens",
            _is_whole(self.max_tokens) and self.max_tokens >= 1,
            "a whole number from 1 on",
        )
        self._require(
            "temperature",
            _is_number(self.temperature) and 0 <= self.temperature < float("inf"),
            "0 or more",
        )
        self._require(
            "top_k",
            self.top_k is None or (_is_whole(self.top_k) and self.top_k >= 1),
            "a whole number from 1 on",
        )
        self._require(
            "top_p",
            self.top_p is None or (_is_number(self.top_p) and 0 < self.top_p <= 1),
            "above 0 and up to 1",
        )
        self._require(
            "min_p",
            self.min_p is None or (_is_number(self.min_p) and 0 <= self.min_p <= 1),
            "from 0 to 1",
        )
        positive = _is_number(self.repetition_penalty) and 0 < self.repetition_penalty < float(
            "inf"
        )
        self._require("repetition_penalty", positive, "above 0 (1 is none)")
        fits = self.seed is None or (_is_whole(self.seed) and 0 <= self.seed < 2**63)
        self._require("seed", fits, "a whole number from 0 to 2**63 - 1")
        self._require(
            "stop",
            all(isinstance(text, str) and text for text in self.stop),
            "texts that are not empty",
        )

    @property
    def constrained(self) -> bool:
        """Whether the answer must follow a schema, an expression or a grammar."""
        return any(getattr(self, name) is not None for name in CONSTRAINTS)

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UsageError(f"{name} must be {what}, not {getattr(self, name)!r}.")

    def override(self, changes: dict[str, Any]) -> SamplingParams:
        """The same parameters with some changed; UsageError for a name that there is not."""
        names = [field.name for field in fields(self)]
        if unknown := sorted(set(changes) - set(names)):
            raise UsageError(
                f"there is no sampling parameter {unknown[0]!r}; there are {', '.join(names)}."
            )
        return replace(self, **changes)


def _json_text(schema: object) -> str:
    """A JSON schema as text, which can be hashed and compared. Its order stays: it is the order of
    the answer's fields.
    """
    try:
        schema = json.loads(schema) if isinstance(schema, str) else schema
        if isinstance(schema, Mapping):
            return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise UsageError(f"json_schema is not JSON: {error}.") from error
    raise UsageError(
        f"json_schema must be a mapping or its JSON text, not {type(schema).__name__}."
    )


def _texts(given: object) -> tuple[object, ...]:
    """One text, several or None, as a tuple."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Sampler:
    """Chooses the tokens of one sequence; remembers its random generator, and which tokens came if
    they are to be disfavoured.

    prompt: ids that count as having come.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int] = ()) -> None:
        self._greedy = params.temperature == 0
        self._penalty = float(params.repetition_penalty)
        self._prompt = prompt
        self._came: Tensor | None = None
        self._warpers = _warpers(params)
        self._generator = (
            torch.Generator()
        )  # on the CPU, so that a seed means the same on every device
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def pick(self, logits: Tensor) -> Tensor:
        """The next token, int64 `[]`, for logits `[V]`."""
        scores = self._penalised(logits.float())
        if self._greedy:
            return scores.argmax()
        no_ids = cast("torch.LongTensor", torch.empty(1, 0, dtype=torch.long))
        weights = self._warpers(no_ids, scores[None])[0].softmax(-1)
        if weights.device.type == "mps":  # which has no float64
            weights = weights.cpu()
        # one number from the host and a look-up, instead of V numbers to the host
        reach = weights.double().cumsum(0)
        draw = float(torch.rand((), dtype=torch.float64, generator=self._generator))
        return (reach <= draw * reach[-1]).sum().to(logits.device)

    def came(self, token: Tensor) -> None:
        """Takes note of the token, int64 `[]`, that the answer goes on with."""
        if self._came is not None:
            self._came.index_fill_(0, token[None], True)

    def _penalised(self, scores: Tensor) -> Tensor:
        """As transformers' `RepetitionPenaltyLogitsProcessor`, which wants all ids from the host
        for each token.
        """
        if self._penalty == 1:
            return scores
        if self._came is None:
            self._came = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
            self._came[torch.tensor(self._prompt, dtype=torch.int64, device=scores.device)] = True
        less = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        return torch.where(self._came, less, scores)


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    """In the order in which transformers' own `generate` applies them."""
    warpers = LogitsProcessorList()
    if params.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k is not None:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p is not None and params.top_p < 1:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    if params.min_p:
        warpers.append(MinPLogitsWarper(float(params.min_p)))
    return warpers
