"""Answers that must follow a schema, an expression or a grammar do, whatever the weights say;
alone, in batches, near the token limit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from namm_llm.config import SamplingParams
from namm_llm.errors import UsageError
from namm_llm.runner import Runner

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "colour": {"enum": ["red", "blue"]},
    },
    "required": ["name", "age", "tags", "colour"],
}


@pytest.mark.parametrize("max_tokens", [48, 49, 55, 80])
@pytest.mark.parametrize("seed", range(3))
def test_json_is_whole_however_near_the_limit(runner: Runner, max_tokens: int, seed: int) -> None:
    found = runner.generate(
        "The", json_schema=SCHEMA, max_tokens=max_tokens, temperature=1.5, seed=seed
    )
    value = json.loads(found.text)
    assert list(value) == SCHEMA["required"]
    assert isinstance(value["name"], str)
    assert isinstance(value["age"], int)
    assert value["colour"] in ("red", "blue")
    assert found.finish_reason == "stop"
    assert found.usage.output_tokens <= max_tokens


@pytest.mark.parametrize(
    "form",
    [
        {"format": "email"},
        {"format": "duration"},
        {"format": "uri"},
        {"format": "ipv4"},
        {"pattern": "^[a-z]+@[a-z]+$"},
        {"pattern": "^.+@.+[.].+$"},
        {"minLength": 20},
    ],
    ids=str,
)
def test_a_form_that_needs_some_characters_is_brought_to_its_end(
    runner: Runner, form: dict[str, Any]
) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", **form}}, "required": ["x"]}
    for seed in range(3):
        found = runner.generate(
            "The", json_schema=schema, max_tokens=50, temperature=1.5, seed=seed
        )
        assert isinstance(json.loads(found.text)["x"], str)
        assert found.finish_reason == "stop"


def test_what_cannot_be_whole_is_cut_and_says_so(runner: Runner) -> None:
    found = runner.generate("The", json_schema=SCHEMA, max_tokens=10)
    assert found.finish_reason == "length"
    assert found.text.startswith('{"name":"')


def test_an_optional_part_of_a_number_does_not_pass_the_limit(runner: Runner) -> None:
    for seed in range(6):
        found = runner.generate(
            "The", json_schema={"type": "number"}, max_tokens=3, temperature=3.0, seed=seed
        )
        json.loads(found.text)


def test_an_answer_ends_where_the_grammar_does(runner: Runner) -> None:
    found = runner.generate("The", regex="[ab]{3}", max_tokens=50)
    assert (len(found.text), set(found.text) <= {"a", "b"}, found.finish_reason) == (
        3,
        True,
        "stop",
    )
    assert runner.generate("The", grammar='start: "yes" | "no"', max_tokens=50).text in (
        "yes",
        "no",
    )
    streamed = [piece.text for piece in runner.stream("The", regex="[ab]{3}", max_tokens=50)]
    assert "".join(streamed) == found.text
    assert runner.generate("The", regex="[ab]{3,9}", max_tokens=2).finish_reason == "length"


def test_a_stop_text_ends_it_too(runner: Runner) -> None:
    found = runner.generate("The", json_schema=SCHEMA, max_tokens=80, stop=["age"])
    assert (found.text[-2:], found.finish_reason) == (',"', "stop")


@pytest.mark.parametrize(
    "eviction", [{}, {"policy": "h2o", "budget": 0.5, "interval": 16}], ids=["full", "h2o"]
)
def test_rows_of_a_batch_follow_their_own(
    make_runner: Callable[..., Runner], eviction: dict[str, Any]
) -> None:
    runner = make_runner(**eviction)
    prompts = ["The quick brown fox", "A", "Who signs travel requests?"]
    alone = [runner.generate(prompt, json_schema=SCHEMA, max_tokens=60).text for prompt in prompts]
    assert [
        one.text for one in runner.generate_batch(prompts, json_schema=SCHEMA, max_tokens=60)
    ] == alone
    assert len(set(alone)) > 1


def test_objects_hold_no_surprises(runner: Runner) -> None:
    inner = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    schema = {"type": "object", "properties": {"b": inner}, "required": ["b"]}
    assert runner.generate("The", json_schema=schema, max_tokens=60).text == '{"b":{"a":1}}'


def test_parameters_can_be_hashed_and_keep_the_order_of_a_schema() -> None:
    params = SamplingParams(json_schema=SCHEMA)
    assert hash(params) == hash(SamplingParams(json_schema=json.dumps(SCHEMA)))
    assert list(json.loads(str(params.json_schema))["properties"]) == [
        "name",
        "age",
        "tags",
        "colour",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"json_schema": "{"}, "json_schema is not JSON: "),
        ({"json_schema": 5}, "json_schema must be a mapping or its JSON text, not int"),
        (
            {"json_schema": {"type": 5}},
            "the json_schema has a mistake: type must be a string or array of strings",
        ),
        ({"regex": "(a"}, "the regex has a mistake: "),
        ({"grammar": 'start: "a'}, "the grammar has a mistake: "),
        (
            {"regex": "a", "grammar": "b"},
            "regex and grammar cannot both be followed; give one of them.",
        ),
    ],
)
def test_mistakes_are_one_clear_line(runner: Runner, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        runner.generate("The", **wrong)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_without_the_extra_the_command_is_named(
    make_runner: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_runner()
    monkeypatch.delitem(runner.loaded.__dict__, "grammars", raising=False)
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with pytest.raises(UsageError, match=r"need llguidance: pip install 'namm-llm\[structured\]'"):
        runner.generate("The", regex="a")


def test_json_that_was_ended_in_time_says_so(runner: Runner) -> None:
    early = runner.generate("The", json_schema={"type": "string"}, max_tokens=24)
    assert isinstance(json.loads(early.text), str)
    assert (early.finish_reason, early.closed_early) == ("stop", True)
    assert not runner.generate("The", json_schema={"const": 1}, max_tokens=24).closed_early
    assert not runner.generate("The", max_tokens=4).closed_early
