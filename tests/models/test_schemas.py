"""Schemas as a grammar needs them: closed, joined, moved to another place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from namm_llm.models.schemas import anchored, closed, unenforced
from namm_llm.models.tools import forced_call
from namm_llm.runner import Runner

A: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
B: dict[str, Any] = {"type": "object", "properties": {"b": {"const": 1}}, "required": ["b"]}
SEEDS = range(6)


def written(runner: Runner, schema: dict[str, Any], seed: int) -> Any:
    found = runner.generate("The", json_schema=schema, max_tokens=80, temperature=1.5, seed=seed)
    assert found.finish_reason == "stop"
    return json.loads(found.text)


def test_all_of_joins_objects(runner: Runner) -> None:
    joined = {"allOf": [{"$ref": "#/$defs/A"}, B], "$defs": {"A": A}}
    for seed in SEEDS:
        value = written(runner, joined, seed)
        assert set(value) == {"a", "b"}
        assert (type(value["a"]), value["b"]) == (bool, 1)


def test_a_part_of_all_of_that_names_no_properties_holds_too(runner: Runner) -> None:
    schema = {"allOf": [{"type": "integer"}, {"enum": ["x", 3]}]}
    assert written(runner, schema, 0) == 3


def test_all_of_that_contains_itself_ends() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}}
    assert closed(schema)["$ref"] == "#/$defs/A"


@pytest.mark.parametrize("name", ["const", "enum", "default", "properties", "$ref", "allOf"])
def test_a_property_may_bear_the_name_of_a_keyword(name: str) -> None:
    found = closed({"properties": {name: A}})["properties"][name]
    assert found == {**A, "additionalProperties": False}


@pytest.mark.parametrize("key", ["const", "default"])
def test_values_are_no_schemas(key: str) -> None:
    assert closed({key: A}) == {key: A}
    assert closed({"enum": [A]}) == {"enum": [A]}


def test_what_a_schema_allows_stays_allowed() -> None:
    assert closed({**A, "additionalProperties": True})["additionalProperties"] is True


def test_references_start_where_the_schema_is_put() -> None:
    schema = {"$id": "x", "properties": {"a": {"$ref": "#"}, "$ref": {"$ref": "#/$defs/X"}}}
    assert anchored(schema, "#/$defs/t") == {
        "properties": {"a": {"$ref": "#/$defs/t"}, "$ref": {"$ref": "#/$defs/t/$defs/X"}}
    }


def test_keywords_that_nothing_enforces_are_found_wherever_they_are() -> None:
    schema = {"properties": {"not": A, "x": {"items": {"contains": {}}}}, "uniqueItems": True}
    assert unenforced(schema) == {"contains", "uniqueItems"}


def test_keywords_that_nothing_enforces_are_warned_of(runner: Runner) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}
    with pytest.warns(UserWarning, match="not held to uniqueItems of the json_schema; check it"):
        runner.generate("The", json_schema=schema, max_tokens=30)


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def called(runner: Runner, tools: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "x"}]
    options = {"tools": tools, "tool_choice": "required", "max_tokens": 150, "temperature": 1.2}
    found = runner.chat(messages, **options, seed=seed)
    assert found.finish_reason == "stop"
    return dict(json.loads(found.text))


def test_two_tools_may_name_different_definitions_alike(runner: Runner) -> None:
    reference = {"q": {"$ref": "#/$defs/Item"}}
    text = {"type": "string", "maxLength": 4}
    tools = [
        tool("t", type="object", properties=reference, required=["q"], **{"$defs": {"Item": A}}),
        tool("u", type="object", properties=reference, required=["q"], **{"$defs": {"Item": text}}),
    ]
    kinds = {"t": dict, "u": str}
    calls = [called(runner, tools, seed) for seed in range(12)]
    assert {call["name"] for call in calls} == {"t", "u"}
    for call in calls:
        assert type(call["arguments"]["q"]) is kinds[call["name"]]


def test_parameters_may_refer_to_their_own_properties(runner: Runner) -> None:
    own = {"a": {"type": "boolean"}, "b": {"$ref": "#/properties/a"}}
    call = called(runner, [tool("t", type="object", properties=own, required=["a", "b"])], 0)
    assert [type(value) for value in call["arguments"].values()] == [bool, bool]


def test_parameters_may_contain_themselves(runner: Runner) -> None:
    own = {
        "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "v": {"type": "integer", "minimum": 0, "maximum": 9},
    }
    tools = [tool("t", type="object", properties=own, required=["child", "v"])]
    for seed in SEEDS:
        arguments = called(runner, tools, seed)["arguments"]
        while arguments is not None:
            assert set(arguments) == {"child", "v"}
            arguments = arguments["child"]


def test_a_forced_call_is_not_ended_by_a_stop_text(runner: Runner) -> None:
    assert forced_call([tool("t")], "t")["stop"] == ()
    messages = [{"role": "user", "content": "x"}]
    found = runner.chat(
        messages, tools=[tool("t")], tool_choice="t", max_tokens=60, stop=['":'], temperature=1.0
    )
    assert json.loads(found.text) == {"name": "t", "arguments": {}}


def test_a_free_model_with_tools_and_a_schema_writes_one_or_the_other(runner: Runner) -> None:
    tools, messages = [tool("t")], [{"role": "user", "content": "x"}]
    options = {"tools": tools, "json_schema": B, "max_tokens": 60, "temperature": 2.0}
    found = {runner.chat(messages, **options, seed=seed).text for seed in range(12)}
    assert found == {'{"name":"t","arguments":{}}', '{"b":1}'}
