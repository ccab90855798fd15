"""`SamplingParams`: how an answer is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from namm_llm.config.setting import check_fields, check_names, declared_in, setting
from namm_llm.errors import UsageError

MOST_GUESSED = 14  # with one more token, as many as every kernel takes one by one
CONSTRAINTS = ("json_schema", "regex", "grammar")


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is written: its length, how its tokens are drawn, and what form it must have.

    At most one of `json_schema`, `regex` and `grammar` can be given; they need the extra
    `structured`. JSON is brought to its end before `max_tokens` where that is enough for any whole
    answer. Raises UsageError for a value that is out of range.
    """

    max_tokens: int = setting(
        "Most tokens of an answer.",
        256,
        unit="tokens",
        metavar="N",
        least=1,
        aliases=("max_new_tokens", "num_predict", "max_output_tokens"),
    )
    temperature: float = setting(
        "0 always takes the likeliest token; higher varies more.", 0.0, metavar="T", least=0
    )
    top_k: int | None = setting(
        "Draw from the K likeliest tokens; 0 for all.", None, metavar="K", least=0
    )
    top_p: float | None = setting(
        "Draw from the likeliest tokens that have this probability together.",
        None,
        metavar="P",
        above=0,
        most=1,
    )
    min_p: float | None = setting(
        "Draw from the tokens with at least this share of the likeliest one's probability.",
        None,
        metavar="P",
        least=0,
        most=1,
    )
    repetition_penalty: float = setting(
        "Above 1 disfavours tokens of the prompt and the answer.",
        1.0,
        metavar="X",
        above=0,
        aliases=("repeat_penalty",),
    )
    presence_penalty: float = setting(
        "Above 0 disfavours tokens that the answer holds already.",
        0.0,
        metavar="X",
        least=-2,
        most=2,
    )
    frequency_penalty: float = setting(
        "Above 0 disfavours tokens the more often the answer holds them.",
        0.0,
        metavar="X",
        least=-2,
        most=2,
    )
    logit_bias: Mapping[int, float] | None = setting(
        "Added to the logits of these token ids before one is chosen.", None, offered=False
    )
    logprobs: int | None = setting(
        "Report the log-probability of each token, and of the N likeliest in its place.",
        None,
        metavar="N",
        least=0,
        most=20,
        unset="no log-probabilities",
    )
    seed: int | None = setting(
        "Makes drawing repeatable.", None, metavar="N", least=0, most=2**63 - 1
    )
    stop: tuple[str, ...] = setting(
        "A text that ends the answer and is not part of it.",
        (),
        annotation="str | Sequence[str]",
        metavar="TEXT",
    )
    stop_loops: bool | None = setting(
        "End an answer that has begun to repeat itself: one block three times, 48 tokens or more.",
        None,
        unset="on for summaries, on the command line and in the server, off elsewhere",
    )
    prompt_lookup: int | None = setting(
        "Tokens guessed at a time from the text; greedy answers stay the same. 0: none.",
        None,
        unset="as many as pay",
        unit="tokens",
        metavar="N",
        least=0,
        most=MOST_GUESSED,
        aliases=("prompt_lookup_num_tokens",),
    )
    json_schema: str | Mapping[str, Any] | None = setting(
        "The answer is JSON that follows this schema.",
        None,
        annotation="str | Mapping[str, Any] | None",
        metavar="FILE",
        from_file=True,
    )
    regex: str | None = setting("The answer matches this expression.", None, metavar="RE")
    grammar: str | None = setting(
        "The answer follows this Lark grammar.", None, metavar="FILE", from_file=True
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _texts(self.stop))
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", _json_text(self.json_schema))
        if len(given := [name for name in CONSTRAINTS if getattr(self, name) is not None]) > 1:
            raise UsageError(
                f"{given[0]} and {given[1]} cannot both be followed; give one of them."
            )
        check_fields(self)
        for token, bias in (self.logit_bias or {}).items():
            if not (isinstance(token, int) and math.isfinite(bias) and abs(bias) <= 100):
                raise UsageError(
                    "logit_bias maps token ids to numbers from -100 to 100, not "
                    f"{token!r} to {bias!r}."
                )
        if not all(isinstance(text, str) and text for text in self.stop):
            raise UsageError(f"stop must be texts that are not empty, not {self.stop!r}.")

    @property
    def constrained(self) -> bool:
        """Whether the answer must follow a schema, an expression or a grammar."""
        return any(getattr(self, name) is not None for name in CONSTRAINTS)

    @property
    def is_plain(self) -> bool:
        """Whether tokens are chosen by the model's own logits and nothing else."""
        changed = self.presence_penalty or self.frequency_penalty or self.logit_bias
        return self.repetition_penalty == 1 and not changed and not self.constrained

    def override(self, changes: Mapping[str, Any]) -> SamplingParams:
        """The same parameters with some changed. UsageError for a name that there is not."""
        # `logit_bias` speaks of token ids, so only requests offer it
        check_names(set(changes) - {"logit_bias"}, SAMPLING, "sampling")
        return replace(self, **changes)


SAMPLING = declared_in(SamplingParams, "sampling")


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
