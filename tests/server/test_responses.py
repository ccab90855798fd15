"""The Responses interface: the same answers as items, and conversations that go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from namm_llm.runner import Runner
from tests.server.test_chat import MESSAGES, TOOL, events

BODY = {"model": "default", "input": MESSAGES[0]["content"], "max_output_tokens": 8}


def respond(client: TestClient, **fields: Any) -> Any:
    response = client.post("/v1/responses", json={**BODY, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def text_of(response: Any) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def streamed(client: TestClient, **fields: Any) -> list[Any]:
    found = events(client, "/v1/responses", **{**BODY, **fields})
    return [each for each in found if isinstance(each, dict)]


def test_a_response_is_the_runners_answer(client: TestClient, runner: Runner) -> None:
    found = respond(client)
    wanted = runner.chat(MESSAGES, max_tokens=8)
    assert text_of(found) == wanted.text
    assert found["status"] == "incomplete"
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["usage"]["input_tokens"] == wanted.usage.input_tokens


def test_instructions_are_the_systems(client: TestClient, runner: Runner) -> None:
    system = {"role": "system", "content": "Be brief."}
    found = respond(client, instructions="Be brief.")
    assert text_of(found) == runner.chat([system, *MESSAGES], max_tokens=8).text


def test_a_response_goes_on_from_an_earlier_one(client: TestClient, runner: Runner) -> None:
    first = respond(client)
    second = respond(client, input="Why?", previous_response_id=first["id"])
    answer = {"role": "assistant", "content": text_of(first)}
    why = {"role": "user", "content": "Why?"}
    assert text_of(second) == runner.chat([*MESSAGES, answer, why], max_tokens=8).text
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 0


def test_a_response_that_is_not_kept_is_not_found(client: TestClient) -> None:
    gone = respond(client, store=False)["id"]
    for id in ("resp_x", gone):
        response = client.post("/v1/responses", json={**BODY, "previous_response_id": id})
        assert response.status_code == 404
        assert response.json()["error"]["param"] == "previous_response_id"


def test_kept_conversations_have_a_bound_in_bytes(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_responses_nbytes=4000)
    ids = [respond(client, input=f"{at} " * 600)["id"] for at in range(4)]

    def goes_on(id: str) -> bool:
        body = {**BODY, "previous_response_id": id}
        return client.post("/v1/responses", json=body).status_code == 200

    assert [goes_on(id) for id in reversed(ids)] == [True, False, False, False]


def test_a_stream_has_the_events_of_its_items(client: TestClient) -> None:
    whole, found = respond(client), streamed(client)
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    kinds = [each["type"].removeprefix("response.") for each in found]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    deltas = [each["delta"] for each in found if each["type"].endswith("output_text.delta")]
    assert "".join(deltas) == text_of(whole) == text_of(found[-1]["response"])


def test_a_tool_is_called_and_its_answer_read(client: TestClient) -> None:
    tool = {"type": "function", **TOOL["function"]}
    asked = {"tools": [tool], "tool_choice": "required", "max_output_tokens": 60}
    (call,) = respond(client, **asked)["output"]
    assert call["type"] == "function_call"
    assert json.loads(call["arguments"])["who"] in ("a", "b")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rang"}
    given = [{"type": "message", "phase": "commentary", **MESSAGES[0]}, call, output]
    found = respond(client, input=given, tools=[tool], tool_choice="none")
    assert found["output"][0]["type"] == "message"
    kinds = [each["type"] for each in streamed(client, **asked)]
    assert "response.function_call_arguments.done" in kinds


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        {"input": [{"role": "robot", "content": "hi"}]},
        {"tools": [{"type": "web_search"}]},
        {"text": {"form": {}}},
        {"text": {"format": 5}},
        {"text": {"format": "json"}},
        {"text": {"verbosity": "low"}},
        {"input": []},
        {"input": [{"role": "user", "content": "x", "y": 1}]},
        {"input": [{"type": "function_call", "name": 5, "call_id": "x"}]},
        {"tool_choice": {}},
        {"background": True},
        {"include": ["reasoning.encrypted_content"]},
        {"truncation": "auto"},
    ],
)
def test_what_is_not_supported_is_refused(client: TestClient, fields: dict[str, Any]) -> None:
    response = client.post("/v1/responses", json={**BODY, **fields})
    assert response.status_code == 400
    assert "\n" not in response.json()["error"]["message"]
