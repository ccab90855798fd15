"""What people use a model for: chat, questions about a document, schemas, tools, summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from namm_llm import Runner, parse_tool_calls, summarize

pytestmark = pytest.mark.real
NOTICE = """The Harbour Library moves in spring. From the second of April it will be at 14 Mill
Street, in the old post office. The new head of the library is Ruth Almeida, who follows Peter
Hoang. Lending is free for everybody under eighteen. Others pay twelve euros a year. The children's
corner opens at nine, the reading room at ten, and both close at seven. On Mondays the library is
closed. Books can be returned at any hour through the slot beside the door. The cafe is run by two
students, who bake their own bread. There is room for forty bicycles in the yard, and none for cars.
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def test_chat_remembers_what_was_said(runner: Runner) -> None:
    chat = [{"role": "user", "content": "Hello, my name is Ruth and I live in Oslo."}]
    first = runner.chat(chat, max_tokens=60)
    assert first.text
    chat += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "What is my name?"},
    ]
    second = runner.chat(chat, max_tokens=40)
    assert "Ruth" in second.text
    assert second.usage.cached_tokens > first.usage.input_tokens


def test_questions_about_a_document_are_answered_from_it(runner: Runner) -> None:
    document = runner.read(NOTICE)
    answers = {
        "Who is the new head of the library?": "Ruth Almeida",
        "At what street will the library be?": "Mill Street",
        "When is the library closed?": "Monday",
    }
    for question, stated in answers.items():
        assert stated in document.ask(question, max_tokens=40).text, question


def test_the_right_document_is_found_among_several(runner: Runner) -> None:
    other = "The swimming pool is at 3 Castle Road. Its head is Omar Lind. It opens at six."
    library, pool = runner.read(NOTICE), runner.read(other)
    answers = runner.ask_each([library, pool], "What is the name of the head?", max_tokens=40)
    assert "Almeida" in answers[0].text
    assert "Lind" in answers[1].text


def test_a_memory_answers_the_same_after_it_was_saved(runner: Runner, tmp_path: Path) -> None:
    document = runner.read(NOTICE)
    path = tmp_path / "notice.namm"
    document.save(path)
    question = "Who is the new head of the library?"
    again = runner.open(path).ask(question, max_tokens=40).text
    assert again == document.ask(question, max_tokens=40).text


def test_an_answer_follows_its_schema(runner: Runner) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    chat = [{"role": "user", "content": "Ruth Almeida is 41 years old. Give her name and age."}]
    found = json.loads(runner.chat(chat, max_tokens=60, json_schema=schema).text)
    assert set(found) == {"name", "age"}
    assert "Ruth" in found["name"]
    assert found["age"] == 41


def test_a_forced_call_names_the_tool_and_takes_the_argument_from_the_question(
    runner: Runner,
) -> None:
    chat = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = runner.chat(chat, max_tokens=60, tools=[WEATHER], tool_choice="required")
    (call,) = parse_tool_calls(answer.text, [WEATHER])[1]
    assert call.name == "get_weather"
    assert "Oslo" in call.arguments["city"]


def test_an_answer_about_a_short_text_at_half_of_its_cache(runner: Runner) -> None:
    document = runner.with_cache(budget=0.5).read(NOTICE)
    info = document.info()
    assert info["stored_tokens"] <= 0.5 * info["seen_tokens"]
    assert info["nbytes"] < 0.7 * info["full_nbytes"]  # with the 16 newest queries
    assert "Almeida" in document.ask("Who is the new head of the library?", max_tokens=40).text


@pytest.mark.parametrize("method", ["one-pass", "map-reduce"])
def test_a_summary_is_about_the_text_and_ends(runner: Runner, method: str) -> None:
    summary = summarize(NOTICE, runner, method=method, length=2)  # type: ignore[arg-type]
    assert "library" in summary.text.lower()
    assert 0 < len(summary.text) < len(NOTICE)


def test_a_quarter_of_the_cache_still_answers(runner: Runner) -> None:
    evicting = runner.with_cache(budget=0.25, interval=64)
    filler = "The river was calm that year, and the fields beside it were dry. " * 40
    document = evicting.read(f"{filler}\nThe new head of the library is Ruth Almeida.\n{filler}")
    info = document.info()
    assert info["stored_tokens"] < 0.4 * info["seen_tokens"]
    assert "Almeida" in document.ask("Who is the new head of the library?", max_tokens=40).text
