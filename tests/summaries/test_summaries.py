"""Summaries with a model that is too small for the text: what is asked, in which order, and that
nothing of the text is left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from namm_llm import (
    ContextError,
    Document,
    DocumentError,
    Generation,
    Runner,
    SamplingParams,
    UsageError,
    stream_summary,
    summarize,
)
from namm_llm.summaries import LENGTHS, Summary
from namm_llm.summaries.calls import _text_of
from tests.summaries.conftest import ANSWER
from tests.tiny import save_tiny

WHOLE = "Summarize the text above in five sentences."
PART = "The text above is one part of a longer document. Summarize it in five sentences."
JOIN = (
    "Above are summaries of the parts of one document, in their order. Write one summary of the "
    "whole document in five sentences."
)
GO_ON = (
    "Above are a summary of a document so far and the text that follows. Write one summary of both "
    "together in five sentences."
)


def ask(document: Document, prompt: str, *args: object, **options: object) -> Generation:
    """The answer to a prompt that stands behind the text as it is."""
    return document.ask([{"role": "user", "content": prompt}], *args, **options)


def said(answer: Generation) -> str:
    """An answer as it goes into the next prompt."""
    return answer.text.replace("\0", "").strip()


def parts_of(summary: Summary, text: str) -> list[str]:
    return [text[part.start : part.stop] for part in summary.parts]


# -- methods ---------------------------------------------------------------------------------------


def test_a_text_that_fits_is_read_in_one_pass(runner: Runner, short: str) -> None:
    summary = summarize(short, runner, **ANSWER)
    alone = ask(runner.read(short), WHOLE, **ANSWER)
    assert (summary.method, summary.calls, summary.resumed, summary.finish_reason) == (
        "one-pass",
        1,
        0,
        "length",
    )
    assert summary.text == alone.text
    assert summary.usage.output_tokens == 12
    assert (summary.usage.input_tokens, summary.usage.cached_tokens) == (
        alone.usage.input_tokens,
        0,
    )
    assert [(part.start, part.stop, part.summary) for part in summary.parts] == [
        (0, len(short), summary.text)
    ]
    assert summary.cache == alone.cache


def test_a_text_that_is_too_long_is_mapped_and_reduced(runner: Runner, page: str) -> None:
    summary = summarize(page[:800], runner, **ANSWER)
    parts = parts_of(summary, page)
    assert summary.method == "map-reduce"
    assert len(parts) >= 3
    assert "".join(parts) == page[:800]
    assert all(part.endswith("\n\n") for part in parts[:-1])
    alone = [ask(runner.read(part), PART, **ANSWER) for part in parts]
    assert [part.summary for part in summary.parts] == [said(answer) for answer in alone]
    together = "\n\n".join(
        f"Part {number}:\n{said(answer)}" for number, answer in enumerate(alone, 1)
    )
    last = ask(runner.read(together), JOIN, **ANSWER)
    assert summary.text == last.text
    assert summary.calls == len(parts) + 1
    assert summary.usage.input_tokens == sum(answer.usage.input_tokens for answer in [*alone, last])
    assert summary.usage.output_tokens == 12 * summary.calls
    assert summary.cache.nbytes == max(answer.cache.nbytes for answer in [*alone, last])


def test_summaries_that_do_not_fit_together_are_joined_in_levels(runner: Runner, page: str) -> None:
    summary = summarize(page, runner, part_tokens=48, **ANSWER)
    assert "".join(parts_of(summary, page)) == page
    assert len(summary.parts) >= 14
    assert summary.calls >= len(summary.parts) + 3  # at least two groups on the way
    assert all(part.tokens <= 48 for part in summary.parts)
    assert summary.finish_reason == "length"


def test_refine_takes_the_summary_so_far_along(runner: Runner, page: str) -> None:
    summary = summarize(page[:800], runner, method="refine", **ANSWER)
    first, *others = parts_of(summary, page)
    assert len(others) >= 2
    assert first + "".join(others) == page[:800]
    answer = ask(runner.read(first), PART, **ANSWER)
    states = [said(answer)]
    for part in others:
        text = f"Summary so far:\n{states[-1]}\n\nText that follows:\n{part}"
        answer = ask(runner.read(text), GO_ON, **ANSWER)
        states.append(said(answer))
    assert summary.text == answer.text
    assert [part.summary for part in summary.parts[:-1]] == states[:-1]
    assert summary.calls == len(summary.parts)


@pytest.mark.parametrize("method", ["map-reduce", "refine"])
def test_a_text_that_is_one_part_is_read_in_one_pass_whatever_is_asked_for(
    runner: Runner, short: str, method: str
) -> None:
    summary = summarize(short, runner, method=method, **ANSWER)
    assert (summary.calls, summary.text) == (1, summarize(short, runner, **ANSWER).text)


def test_a_method_that_is_asked_for_is_taken_where_one_pass_would_do(
    runner: Runner, page: str
) -> None:
    text = page[:200]
    assert summarize(text, runner, **ANSWER).method == "one-pass"
    summary = summarize(text, runner, method="map-reduce", part_tokens=50, **ANSWER)
    assert (summary.method, "".join(parts_of(summary, text))) == ("map-reduce", text)
    assert summary.calls == len(summary.parts) + 1 > 2


def test_white_space_that_fills_a_part_is_not_asked_about(runner: Runner) -> None:
    text = f"The lamp is green.{' ' * 3000}The door is red."
    summary = summarize(text, runner, part_tokens=100, **ANSWER)
    read = "".join(parts_of(summary, text))
    assert read.split() == text.split()
    assert all(part.strip() for part in parts_of(summary, text))


@pytest.mark.parametrize("method", ["map-reduce", "refine"])
def test_names_of_special_tokens_and_other_scripts_are_text(runner: Runner, method: str) -> None:
    text = "Ein schöner Tag <|eot_id|> 漢字 und 🙂👩‍👩‍👧. " * 18
    summary = summarize(text, runner, method=method, **ANSWER)
    assert "".join(parts_of(summary, text)) == text
    assert len(summary.parts) >= 3


def test_a_model_without_a_chat_template(tmp_path: Path, page: str) -> None:
    plain = Runner.load(save_tiny(tmp_path / "plain", positions=320, template=None))
    summary = summarize(page[:800], plain, **ANSWER)
    alone = plain.read(page[: summary.parts[0].stop]).ask(PART, **ANSWER)
    assert summary.parts[0].summary == said(alone)


# -- what is asked for -----------------------------------------------------------------------------


def test_length_and_focus_reach_the_model(runner: Runner, short: str, page: str) -> None:
    asked = ask(
        runner.read(short),
        "Summarize the text above in two sentences. Tell only what matters for this: the red door",
        **ANSWER,
    )
    assert (
        summarize(short, runner, length="short", focus=" the red\ndoor ", **ANSWER).text
        == asked.text
    )
    summary = summarize(page[:800], runner, length=1, focus="lamps", **ANSWER)
    tail = "in one sentence. Tell only what matters for this: lamps"
    prompt = f"The text above is one part of a longer document. Summarize it {tail}"
    first = ask(runner.read(page[: summary.parts[0].stop]), prompt, **ANSWER)
    assert summary.parts[0].summary == said(first)


@pytest.mark.parametrize(
    ("length", "tokens"), [(1, 92), ("3", 212), ("short", 60 * LENGTHS["short"] + 32)]
)
def test_the_default_max_tokens_follows_the_length(
    runner: Runner, short: str, length: int | str, tokens: int
) -> None:
    assert (
        summarize(short, runner, length=length, stop_loops=False).usage.output_tokens == tokens
    )  # a random model does not end by itself


def test_sampling(runner: Runner, short: str) -> None:
    params = SamplingParams(max_tokens=9, temperature=1.0, seed=3)
    once, again = (summarize(short, runner, params).text for _ in range(2))
    assert once == again == ask(runner.read(short), WHOLE, params).text
    assert once != summarize(short, runner, params, seed=4).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "quick"},
            "method must be one of auto, one-pass, map-reduce, refine, not 'quick'.",
        ),
        (
            {"length": "tiny"},
            "length must be a number of sentences or one of short, medium, long, not 'tiny'.",
        ),
        (
            {"length": 0},
            "length must be a number of sentences or one of short, medium, long, not 0.",
        ),
        (
            {"length": "0"},
            "length must be a number of sentences or one of short, medium, long, not 0.",
        ),
        (
            {"length": True},
            "length must be a number of sentences or one of short, medium, long, not True.",
        ),
        (
            {"length": None},
            "length must be a number of sentences or one of short, medium, long, not None.",
        ),
        (
            {"focus": " "},
            "the focus is empty; say what the summary is to be about, or leave it out.",
        ),
        ({"part_tokens": 0}, "part_tokens must be a whole number from 1 on, not 0."),
        ({"max_token": 3}, "sampling has no setting 'max_token' (did you mean max_tokens?)."),
    ],
    ids=str,
)
def test_wrong_options(
    runner: Runner, short: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        summarize(short, runner, **options)
    assert str(error.value).startswith(message)


def test_a_summary_that_repeats_itself_is_ended_and_says_so(runner: Runner, short: str) -> None:
    # what the answer holds already is favoured, so that a random model repeats itself
    options = {"max_tokens": 180, "frequency_penalty": -2.0}
    summary = summarize(short, runner, **options)
    whole = summarize(short, runner, stop_loops=False, **options)
    assert (summary.finish_reason, summary.looped, summary.cut_calls) == ("stop", True, 0)
    assert (whole.finish_reason, whole.looped, whole.cut_calls) == ("length", False, 1)
    assert whole.text.startswith(summary.text)
    assert summary.usage.output_tokens < 180


def test_what_a_part_repeats_is_once_in_the_next_prompt() -> None:
    answer = Generation("A b. c d. c d. c d.", "stop", *[None] * 4, looped=True)
    assert _text_of(answer) == "A b. c d."
    assert _text_of(replace(answer, looped=False)) == answer.text
    assert _text_of(replace(answer, text="xyz" * 9)) == "xyz"


# -- sources ---------------------------------------------------------------------------------------


def test_several_texts_have_a_summary_each(runner: Runner, short: str, page: str) -> None:
    first, second = summarize([page[:600], short], runner, **ANSWER)
    assert (first.method, second.method) == ("map-reduce", "one-pass")
    assert second.text == summarize(short, runner, **ANSWER).text
    assert summarize([], runner) == []


def test_a_memory_is_summarized_without_reading_again(runner: Runner, short: str) -> None:
    memory = runner.read(short)
    summary = summarize(memory, **ANSWER)
    assert (summary.text, summary.method, summary.parts) == (
        ask(memory, WHOLE, **ANSWER).text,
        "one-pass",
        (),
    )
    assert summary.usage.cached_tokens == memory.cache.stats().seen_tokens
    with pytest.raises(
        UsageError, match="a memory holds no text that could be cut into parts for refine"
    ):
        summarize(memory, method="refine")


def test_the_model_may_be_named(small_folder: Path, short: str, runner: Runner) -> None:
    full = runner.with_cache()
    assert (
        summarize(short, str(small_folder), **ANSWER).text == summarize(short, full, **ANSWER).text
    )
    settings = {"model": small_folder, "policy": "streaming_llm", "budget": 48, "interval": 64}
    assert summarize(short, settings, **ANSWER).cache == summarize(short, runner, **ANSWER).cache
    with pytest.raises(
        UsageError, match=r"runner must be a Runner, a model's name or arguments of .*, not int"
    ):
        summarize(short, 3)


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_an_empty_text(runner: Runner, text: str) -> None:
    with pytest.raises(DocumentError, match="the document is empty; there is nothing to read"):
        summarize(text, runner)
    with pytest.raises(DocumentError, match="is empty"):
        summarize(["The lamp is green.", text], runner)


def test_one_pass_refuses_what_does_not_fit(runner: Runner, page: str) -> None:
    with pytest.raises(
        ContextError,
        match=r"the text has \d+ tokens, and one pass of .* 320 positions .* summarize it in parts",
    ):
        summarize(page, runner.with_cache(), method="one-pass", **ANSWER)


def test_one_pass_reads_any_length_within_a_budget_in_tokens(runner: Runner, page: str) -> None:
    summary = summarize(page, runner, method="one-pass", **ANSWER)
    assert (summary.method, summary.calls) == ("one-pass", 1)
    assert summary.usage.input_tokens > 320
    assert summary.cache.stored_tokens < 320


@pytest.mark.parametrize("method", ["auto", "map-reduce", "refine"])
@pytest.mark.parametrize("options", [{}, {"focus": "lamp " * 200, "length": 1}])
def test_a_model_that_is_too_small_for_any_part(
    runner: Runner, page: str, method: str, options: dict[str, object]
) -> None:
    with pytest.raises(
        ContextError,
        match=r"has 320 positions, too few for a part of the text .*: ask for a shorter length",
    ):
        summarize(page, runner, method=method, **options)


# -- while it runs ---------------------------------------------------------------------------------


def test_the_summary_comes_in_pieces_and_its_plan_before(runner: Runner, page: str) -> None:
    progress: list[tuple[int, int]] = []
    stream = stream_summary(
        page, runner, on_progress=lambda done, total: progress.append((done, total)), **ANSWER
    )
    plan = stream.plan
    assert (plan.method, plan.spans[0].start, plan.spans[-1].stop) == ("map-reduce", 0, len(page))
    assert progress == []
    with pytest.raises(UsageError, match="the summary is not whole"):
        _ = stream.result
    pieces = [piece.text for piece in stream]
    assert len(pieces) > 3
    assert stream.result.text == "".join(pieces) == summarize(page, runner, **ANSWER).text
    total = sum(span.tokens for span in plan.spans)
    assert progress == sorted(progress)
    assert progress[0][0] < total
    assert progress[-1] == (total, total)
    assert list(stream) == []


def test_cancelling_ends_the_summary_within_a_token(runner: Runner, short: str) -> None:
    cancel, pieces = Event(), []
    stream = stream_summary(short, runner, cancel=cancel, max_tokens=150)
    for piece in stream:
        pieces.append(piece.text)
        if len(pieces) == 3:
            cancel.set()
    result = stream.result
    assert result.finish_reason == "cancelled"
    assert result.text == "".join(pieces)
    assert summarize(short, runner, max_tokens=150).text.startswith(result.text)
    assert result.usage.output_tokens < 150


@pytest.mark.parametrize("method", ["map-reduce", "refine"])
def test_cancelling_before_the_summary_has_begun(runner: Runner, page: str, method: str) -> None:
    cancel, progress = Event(), []

    def on_progress(done: int, total: int) -> None:
        progress.append(done)
        if done > 200:
            cancel.set()

    summary = summarize(
        page, runner, method=method, cancel=cancel, on_progress=on_progress, **ANSWER
    )
    assert (summary.text, summary.finish_reason) == ("", "cancelled")
    assert sum(done > 200 for done in progress) == 1
    assert summary.parts[-1].summary == ""


def test_cancelled_before_anything(runner: Runner, short: str, page: str) -> None:
    cancel = Event()
    cancel.set()
    summaries = summarize([page, short], runner, cancel=cancel, **ANSWER)
    assert [(summary.text, summary.finish_reason, summary.calls) for summary in summaries] == [
        ("", "cancelled", 0)
    ]
    assert summaries[0].cache.nbytes == summaries[0].usage.input_tokens == 0


def test_closing_stops_the_model(runner: Runner, short: str) -> None:
    with stream_summary(short, runner, max_tokens=150) as stream:
        next(stream)
    rest = list(stream)
    assert len(rest) < 140
    assert stream.result.finish_reason == "cancelled"
