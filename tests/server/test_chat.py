"""Chat and text completions are the runner's own answers, in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from namm_llm.runner import Runner

MESSAGES = [{"role": "user", "content": "Who signs travel requests?"}]
CHAT = {"model": "default", "messages": MESSAGES, "max_tokens": 8}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "ring",
        "parameters": {
            "type": "object",
            "properties": {"who": {"enum": ["a", "b"]}},
            "required": ["who"],
        },
    },
}


def chat(client: TestClient, **fields: Any) -> Any:
    response = client.post("/v1/chat/completions", json={**CHAT, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def events(client: TestClient, path: str, **body: Any) -> Iterator[Any]:
    """The JSON of a stream's events; what is no JSON as it stands."""
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                text = line.removeprefix("data: ")
                yield json.loads(text) if text.startswith("{") else text
            elif line.startswith(":"):
                yield line


def chunks(client: TestClient, **fields: Any) -> list[Any]:
    """The events of a chat completion that are JSON."""
    found = list(events(client, "/v1/chat/completions", **{**CHAT, **fields}))
    assert found[-1] == "[DONE]"
    return [each for each in found if isinstance(each, dict)]


def test_a_completion_is_the_runners_answer(client: TestClient, runner: Runner) -> None:
    found = chat(client)
    wanted = runner.chat(MESSAGES, max_tokens=8)
    choice = found["choices"][0]
    assert choice["message"]["content"] == wanted.text
    assert choice["finish_reason"] == wanted.finish_reason == "length"
    assert found["usage"]["prompt_tokens"] == wanted.usage.input_tokens
    assert found["usage"]["completion_tokens"] == 8
    assert found["model"] == "tiny"
    assert found["namm"]["kept_tokens"] == wanted.cache.stored_tokens
    assert found["namm"]["budget"] is None


def test_a_stream_is_the_same_answer_in_pieces(client: TestClient) -> None:
    whole = chat(client)
    found = chunks(client, stream_options={"include_usage": True})
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all("finish_reason" in each["choices"][0] for each in found[:-1])
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in found[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 8


def test_how_far_a_prompt_is_read_comes_as_comments(client: TestClient) -> None:
    long = [{"role": "user", "content": "A fox is no dog. " * 60}]
    found = list(events(client, "/v1/chat/completions", **{**CHAT, "messages": long}))
    comments = [each for each in found if isinstance(each, str) and each.startswith(":")]
    assert len(comments) >= 2
    assert comments[-1].endswith("tokens read")


def test_several_choices_are_those_of_their_seeds(client: TestClient, runner: Runner) -> None:
    found = chat(client, n=3, temperature=1.5, seed=5)
    texts = [choice["message"]["content"] for choice in found["choices"]]
    wanted = [
        runner.chat(MESSAGES, max_tokens=8, temperature=1.5, seed=seed).text for seed in (5, 6, 7)
    ]
    assert texts == wanted
    assert len(set(texts)) > 1
    assert found["usage"]["completion_tokens"] == 24


def test_log_probabilities_come_with_each_token(client: TestClient) -> None:
    content = chat(client, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert len(content) == 8
    assert all(each["top_logprobs"][0]["logprob"] >= each["logprob"] for each in content)
    streamed = [
        each
        for chunk in chunks(client, logprobs=True, top_logprobs=2)
        for each in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [each["token"] for each in streamed] == [each["token"] for each in content]


def test_a_forced_tool_is_called(client: TestClient) -> None:
    named = {"type": "function", "function": {"name": "ring"}}
    forced = {"tools": [TOOL], "tool_choice": named, "max_tokens": 60}
    choice = chat(client, **forced)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "ring"
    assert json.loads(call["function"]["arguments"])["who"] in ("a", "b")
    deltas = [each["choices"][0]["delta"] for each in chunks(client, **forced)]
    (calls,) = (each["tool_calls"] for each in deltas if "tool_calls" in each)
    assert calls[0]["function"] == call["function"]


def test_an_answer_follows_its_format(client: TestClient) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    named = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    found = chat(client, response_format=named, max_tokens=40)["choices"][0]["message"]["content"]
    assert isinstance(json.loads(found)["n"], int)
    free = chat(client, response_format={"type": "json_object"}, max_tokens=40)
    assert isinstance(json.loads(free["choices"][0]["message"]["content"]), dict)


def test_a_second_question_reads_only_what_is_new(client: TestClient) -> None:
    messages = [{"role": "user", "content": "The fox is red. " * 20}]
    first, again = (chat(client, messages=messages)["usage"] for _ in range(2))
    assert first["prompt_tokens"] == again["prompt_tokens"]
    assert again["prompt_tokens_details"]["cached_tokens"] == again["prompt_tokens"] - 1


def test_a_text_is_gone_on_with(client: TestClient, runner: Runner) -> None:
    body = {"model": "tiny", "prompt": "The quick", "max_tokens": 6, "logprobs": 1}
    found = client.post("/v1/completions", json={**body, "echo": True}).json()
    wanted = runner.generate("The quick", max_tokens=6).text
    assert found["choices"][0]["text"] == "The quick" + wanted
    assert len(found["choices"][0]["logprobs"]["tokens"]) == 6
    streamed = events(client, "/v1/completions", **body)
    texts = [each["choices"][0]["text"] for each in streamed if isinstance(each, dict)]
    assert "".join(texts) == wanted


def test_several_prompts_have_several_choices(client: TestClient, runner: Runner) -> None:
    ids = runner.encode("The lazy dog")
    body = {"model": "tiny", "prompt": [ids, ids[:2]], "max_tokens": 3, "n": 2}
    found = client.post("/v1/completions", json=body).json()
    texts = [choice["text"] for choice in found["choices"]]
    one, two = (runner.generate(prompt, max_tokens=3).text for prompt in (ids, ids[:2]))
    assert texts == [one, one, two, two]
    assert found["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
        ({"stream_options": {"x": 1}}, "stream_options.x", "unsupported_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"model": None}, "model", "invalid_value"),
        ({"temperature": -1}, None, "invalid_value"),
        ({"stop": [""]}, None, "invalid_value"),
        ({"top_logprobs": 2}, None, "invalid_value"),
        ({"tool_choice": "required"}, None, "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"response_format": {}}, "response_format", "invalid_value"),
        ({"response_format": 5}, "response_format", "invalid_value"),
        ({"tool_choice": {}}, "tool_choice.type", "missing_required_parameter"),
        ({"tool_choice": {"type": "function", "function": 5}}, "tool_choice.function", None),
        ({"tools": [{**TOOL, "x": 1}]}, "tools.0.x", "unsupported_parameter"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]},
            "tools.0.function.parameters",
            "invalid_value",
        ),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        ({"messages": [{**MESSAGES[0], "tool_calls": 5}]}, "messages.0.tool_calls", None),
        ({"messages": [{**MESSAGES[0], "tool_calls": [5]}]}, "messages.0.tool_calls.0", None),
        ({"messages": [{**MESSAGES[0], "x": 1}]}, "messages.0.x", "unsupported_parameter"),
        ({"logit_bias": {"999999": 1}}, None, "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0.image_url",
            "missing_required_parameter",
        ),
        ({"memory": "handbook"}, None, "invalid_memory"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    client: TestClient, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    response = client.post("/v1/chat/completions", json={**CHAT, **fields})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert code is None or error["code"] == code
    assert "\n" not in error["message"]


def test_a_model_that_is_not_served_is_not_found(client: TestClient) -> None:
    response = client.post("/v1/chat/completions", json={**CHAT, "model": "gpt"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_a_prompt_that_is_too_long_is_refused_with_its_numbers(client: TestClient) -> None:
    long = [{"role": "user", "content": "fox " * 5000}]
    response = client.post("/v1/chat/completions", json={**CHAT, "messages": long})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "4096 positions" in error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/tokenize"])
def test_what_is_no_request_is_refused_in_one_line(client: TestClient, path: str) -> None:
    opening = b'{"model": "default", "messages": '
    for raw in (
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, opening + b'[{"a":' * 5000),
        opening + b'[], "seed": ' + b"9" * 5000 + b"}",
        opening + b'[], "temperature": NaN}',
        opening + b"[1, 2]}",
    ):
        headers = {"content-type": "application/json"}
        response = client.post(path, content=raw, headers=headers)
        assert response.status_code == 400, raw[:60]
        assert "\n" not in response.json()["error"]["message"]


@pytest.mark.parametrize("prompt", [[], [[]], [5, "a"], {}, 5, [-5], [10**30]])
def test_what_is_no_prompt_is_refused(client: TestClient, prompt: Any) -> None:
    body = {"model": "default", "prompt": prompt, "max_tokens": 1}
    assert client.post("/v1/completions", json=body).status_code == 400
    body = {"model": "default", "input": prompt}
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 400
    assert len(response.json()["error"]["message"]) < 300
