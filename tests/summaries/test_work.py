"""Work files: a summary that was interrupted goes on where it stopped, and is what it would have
been.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from namm_llm import DocumentError, Runner, summarize
from namm_llm.summaries import Summary, WorkFile, work_path
from tests.summaries.conftest import ANSWER, IN_PARTS


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "new" / "work.jsonl"


def timeless(summary: Summary) -> Summary:
    return replace(summary, timings=None, resumed=0)


def interrupted(
    page: str, runner: Runner, work: Path | WorkFile, tokens: int, **options: object
) -> Summary:
    """A summary that is cancelled after so many tokens of the text."""
    cancel = Event()

    def on_progress(done: int, total: int) -> None:
        if done >= tokens:
            cancel.set()

    summary = summarize(
        page, runner, work=work, cancel=cancel, on_progress=on_progress, **{**IN_PARTS, **options}
    )
    assert summary.finish_reason == "cancelled"
    return summary


@pytest.mark.parametrize("method", ["map-reduce", "refine"])
@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "seeded"])
def test_going_on_gives_what_an_uninterrupted_run_gives(
    page: str, runner: Runner, work: Path, method: str, params: dict[str, object]
) -> None:
    whole = summarize(page, runner, method=method, **IN_PARTS, **params)
    for tokens in (250, 450, 600):
        interrupted(page, runner, work, tokens, method=method, **params)
        kept = len(WorkFile(work))
        assert 0 < kept < whole.calls
    resumed = summarize(page, runner, work=work, method=method, **IN_PARTS, **params)
    assert resumed.resumed == kept
    assert timeless(resumed) == timeless(whole)
    assert not work.exists()


def test_the_last_answer_of_one_text_is_not_kept_and_one_pass_makes_no_file(
    short: str, runner: Runner, work: Path
) -> None:
    assert summarize(short, runner, work=work, **ANSWER).resumed == 0
    assert not work.parent.exists()


def test_several_texts_share_a_file_and_none_is_done_twice(
    page: str, short: str, runner: Runner, work: Path
) -> None:
    texts = [short, page, page[:600]]
    whole = summarize(texts, runner, **IN_PARTS)
    cancel = Event()
    summaries = summarize(
        texts,
        runner,
        work=work,
        cancel=cancel,
        on_progress=lambda done, _: done > 450 and cancel.set(),
        **IN_PARTS,
    )
    assert [summary.finish_reason for summary in summaries] == ["length", "cancelled"]
    again = summarize(texts, runner, work=work, **IN_PARTS)
    assert again[0].resumed == 1
    assert again[1].resumed > 0
    assert [timeless(summary) for summary in again] == [timeless(summary) for summary in whole]
    assert not work.exists()


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_line_that_was_cut_short_is_written_again(
    page: str, runner: Runner, work: Path, cut: int
) -> None:
    whole = summarize(page, runner, **IN_PARTS)
    interrupted(page, runner, work, 450)
    kept = len(WorkFile(work))
    work.write_bytes(work.read_bytes()[:-cut])
    assert len(WorkFile(work)) == kept - (cut > 1)  # without its newline a line is whole
    interrupted(page, runner, work, 600)  # appends behind the line that was cut
    assert len(WorkFile(work)) >= kept
    assert timeless(summarize(page, runner, work=work, **IN_PARTS)) == timeless(whole)


def test_a_file_of_which_only_the_beginning_is_left(page: str, runner: Runner, work: Path) -> None:
    work.parent.mkdir()
    work.write_bytes(b'{"ver')
    whole = summarize(page, runner, **IN_PARTS)
    assert timeless(summarize(page, runner, work=work, **IN_PARTS)) == timeless(whole)
    assert not work.exists()


def test_lines_that_are_wrong_are_not_used(page: str, runner: Runner, work: Path) -> None:
    interrupted(page, runner, work, 450)
    kept = len(WorkFile(work))
    lines = work.read_text().splitlines()
    broken = [
        json.dumps({**json.loads(lines[0]), "usage": {}}),
        json.dumps({**json.loads(lines[1]), "version": 0}),
        *lines[2:],
        "[]",
    ]
    work.write_text("\n".join(broken) + "\n")
    assert len(WorkFile(work)) == kept - 2


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 13},
        {"length": "short"},
        {"focus": "lamps"},
        {"temperature": 1.0, "seed": 1},
        {"part_tokens": 90},
    ],
    ids=str,
)
def test_other_settings_do_not_use_what_was_kept(
    page: str, runner: Runner, work: Path, change: dict[str, object]
) -> None:
    interrupted(page, runner, work, 450)
    assert summarize(page, runner, work=work, **{**IN_PARTS, **change}).resumed == 0


def test_another_cache_does_not_use_what_was_kept(page: str, runner: Runner, work: Path) -> None:
    interrupted(page, runner, work, 450)
    assert (
        summarize(
            page, runner.with_cache("streaming_llm", budget=40, interval=64), work=work, **IN_PARTS
        ).resumed
        == 0
    )


@pytest.mark.parametrize(
    "content", ["My notes\n", "{}\n", '{"a": 1}\n{"b": 2}\n', "notes without an end"]
)
def test_a_file_of_somebody_else_is_left_alone(
    page: str, runner: Runner, tmp_path: Path, content: str
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(content)
    with pytest.raises(DocumentError, match=r"notes.txt is no work file of a summary"):
        summarize(page, runner, work=notes, **IN_PARTS)
    assert notes.read_text() == content


def test_a_work_file_that_cannot_be_written_is_found_before_anything_is_computed(
    page: str, runner: Runner, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    progress: list[int] = []
    for path in (tmp_path, tmp_path / "file" / "work.jsonl"):
        with pytest.raises(DocumentError, match=r"the work file .* cannot be "):
            summarize(
                page,
                runner,
                work=path,
                on_progress=lambda done, _: progress.append(done),
                **IN_PARTS,
            )
    assert progress == []


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_nobody_else_may_read_it(page: str, runner: Runner, work: Path) -> None:
    interrupted(page, runner, work, 450)
    assert stat.S_IMODE(work.stat().st_mode) == 0o600


def test_the_default_file_follows_the_call(
    page: str, short: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMM_LLM_HOME", str(tmp_path))
    paths = [
        work_path(runner, [page], {}),
        work_path(runner, [page, short], {}),
        work_path(runner, [page], {"focus": "lamps"}),
        work_path(runner.with_cache(), [page], {}),
    ]
    assert len(set(paths)) == 4
    assert {path.parent for path in paths} == {tmp_path / "summaries"}
    assert paths[0] == work_path(runner, [page], {})
