"""What a model is told of tools, calls that are forced, and the calls in what models write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from namm_llm.errors import UsageError
from namm_llm.models.prompt import PromptFormat
from namm_llm.models.tools import ToolCall, parse_tool_calls
from namm_llm.runner import Runner
from tests.tiny import TEMPLATE, tiny_tokenizer

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "adds",
            "parameters": {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/number"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
                "$defs": {"number": {"type": "integer"}},
            },
        },
    },
    {"type": "function", "function": {"name": "ping"}},
]
MESSAGES = [{"role": "user", "content": "Add 1 and 2."}]
CALLED = [
    *MESSAGES,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}],
    },
    {
        "role": "tool",
        "content": [{"type": "text", "text": "3"}],
        "name": "add",
        "tool_call_id": "1",
    },
]
KNOWS_TOOLS = (
    "{{ bos_token }}{% if tools %}TOOLS {{ tools | tojson }}{% endif %}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}"
    "{% for call in message.tool_calls or [] %}CALL {{ call.function.name }} {{ "
    "call.function.arguments.a }}{% endfor %}{% endfor %}"
)
IN_TURN = (
    "{{ bos_token }}{% for message in messages %}{% if message.role != ('user' if loop.index0 % 2 "
    "== 0 else 'assistant') %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ message.role }}] {{ "
    "message.content }}{% endfor %}"
)
ONE, PING = ToolCall("add", {"a": 1, "b": 2}), ToolCall("ping", {})


def form(template: str = TEMPLATE) -> PromptFormat:
    tokenizer = tiny_tokenizer(template=template)
    return PromptFormat(tokenizer, tokenizer.backend_tokenizer, "tiny")


def test_a_template_that_ignores_tools_gets_them_as_a_system_message() -> None:
    text = form().template.render([{"role": "system", "content": "Be brief."}, *MESSAGES], TOOLS)
    assert text.count("system<|end_header_id|>") == 1
    assert (
        text.index("Be brief.")
        < text.index("You can call these tools:")
        < text.index('"name": "add"')
        < text.index("Add 1 and 2.")
    )
    assert "tools:" not in form().template.render(MESSAGES)


def test_a_template_that_knows_tools_gets_them_itself() -> None:
    text = form(KNOWS_TOOLS).template.render(CALLED, TOOLS)
    assert text.startswith('<|begin_of_text|>TOOLS [{"type": "function"')
    assert "You can call" not in text
    assert text.endswith("[assistant] CALL add 1[tool] 3")


def test_calls_and_answers_are_written_out_where_the_template_does_not() -> None:
    text = form().template.render(CALLED)
    assert '{"name": "add", "arguments": {"a": 1, "b": 2}}' in text
    assert "user<|end_header_id|>\n\nAnswer of the tool add:\n3" in text


def test_messages_are_joined_where_a_template_wants_turns() -> None:
    messages = [
        {"role": "system", "content": "S"},
        *MESSAGES,
        {"role": "user", "content": "Now."},
        *CALLED[1:],
        {"role": "user", "content": "So?"},
    ]
    text = form(IN_TURN).template.render(messages)
    assert text.startswith("<|begin_of_text|>[user] S\n\nAdd 1 and 2.\n\nNow.[assistant] {")
    assert text.endswith("[user] Answer of the tool add:\n3\n\nSo?")


def test_two_messages_of_one_role_stay_two_where_the_template_takes_them() -> None:
    assert form().template.render([*MESSAGES, *MESSAGES]).count("user<|end_header_id|>") == 2


@pytest.mark.parametrize(
    ("choice", "names"), [("required", {"add", "ping"}), ("add", {"add"}), ("ping", {"ping"})]
)
def test_a_forced_call_cannot_fail(runner: Runner, choice: str, names: set[str]) -> None:
    for seed in range(3):
        found = runner.chat(
            MESSAGES, tools=TOOLS, tool_choice=choice, max_tokens=60, temperature=1.5, seed=seed
        )
        text, calls = parse_tool_calls(found.text, TOOLS)
        assert (text, len(calls), found.finish_reason) == ("", 1, "stop")
        assert calls[0].name in names
        assert set(calls[0].arguments) == ({"a", "b"} if calls[0].name == "add" else set())


def test_no_choice_leaves_the_tools_out(runner: Runner) -> None:
    free = runner.chat(MESSAGES, max_tokens=5)
    assert runner.chat(MESSAGES, tools=TOOLS, tool_choice="none", max_tokens=5).text == free.text
    told = runner.chat(MESSAGES, tools=TOOLS, max_tokens=5)
    assert told.usage.input_tokens == runner.count_tokens(MESSAGES, TOOLS) > free.usage.input_tokens


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        ('{"name": "add", "arguments": {"a": 1, "b": 2}}', "", [ONE]),
        ('{"name": "add", "parameters": {"a": 1, "b": 2}}', "", [ONE]),
        ('{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}', "", [ONE]),
        (
            'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
            "I add.",
            [ONE],
        ),
        (
            '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}; {"name": "ping"}',
            "",
            [ONE, PING],
        ),
        (
            '```json\n[{"name": "add", "arguments": {"a": 1, "b": 2}}, '
            '{"name": "ping", "arguments": {}}]\n```',
            "",
            [ONE, PING],
        ),
        ('{"type": "function", "function": {"name": "ping", "arguments": {}}}', "", [PING]),
        ('{"name": "other", "arguments": {}}', '{"name": "other", "arguments": {}}', []),
        ('[{"name": "ping"}, 5] and {1} [', '[{"name": "ping"}, 5] and {1} [', []),
        ('{"name": "add", "argum', '{"name": "add", "argum', []),
        ("No call.", "No call.", []),
        ('{"name": "ping", "arguments": ""}', "", [PING]),
        ('{"name": "ping", "arguments": null}', "", [PING]),
        (
            '{"name": "ping", "arguments": {"code": "a\nb"}}',
            "",
            [ToolCall("ping", {"code": "a\nb"})],
        ),
        ('<function=add>{"a": 1, "b": 2}</function>', "", [ONE]),
        (
            "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n"
            "<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
            "",
            [ONE],
        ),
        ("<tool_call><function=ping></function></tool_call>", "", [PING]),
        ("[add(a=1, b=2), ping()]", "", [ONE, PING]),
        ('[TOOL_CALLS] [{"name": "ping", "arguments": {}}]', "", [PING]),
        ('<tools>\n{"name": "ping"}\n</tools>', "", [PING]),
        ("ping() is a call.", "ping() is a call.", []),
        ("[add(1, 2)]", "[add(1, 2)]", []),
        ('Write {"name": "ping"} to ring.', 'Write {"name": "ping"} to ring.', []),
        ('{"name": "ping"}\nThis rings the bell.', "This rings the bell.", [PING]),
    ],
)
def test_calls_are_found_in_what_models_write(text: str, rest: str, calls: list[ToolCall]) -> None:
    assert parse_tool_calls(text, TOOLS) == (rest, calls)


def test_calls_have_ids_of_their_own() -> None:
    _, calls = parse_tool_calls('{"name": "ping"} {"name": "ping"}', TOOLS)
    assert calls[0].id != calls[1].id
    assert json.loads(json.dumps(calls[0].to_openai()))["function"] == {
        "name": "ping",
        "arguments": {},
    }


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (
            MESSAGES,
            {"tools": [{"name": "add"}]},
            'a tool is a mapping {"type": "function", "function"',
        ),
        (
            MESSAGES,
            {"tools": TOOLS, "tool_choice": "sub"},
            "tool_choice must be auto, none, required or one of add, ping, not 'sub'.",
        ),
        (
            MESSAGES,
            {"tool_choice": "required"},
            "tool_choice is 'required', but there are no tools.",
        ),
        (
            "text",
            {"tools": TOOLS},
            "tools need messages; a text or token ids go to the model as they stand.",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            {},
            "the model reads text only, and a message holds a part of the type image_url",
        ),
        (
            [{"role": "user", "content": 5}],
            {},
            "a message's content is text or a list of parts, not int.",
        ),
    ],
)
def test_mistakes_are_one_clear_line(
    runner: Runner, prompt: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        runner.generate(prompt, **options)
    assert str(error.value).startswith(message)
