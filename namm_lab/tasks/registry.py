"""The table of tasks, and samples of one of them."""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from namm_lab.tasks.answering import Answering
from namm_lab.tasks.conversation import Conversation
from namm_lab.tasks.corpus import CountTokens
from namm_lab.tasks.enumerations import Enumerations
from namm_lab.tasks.facts import Facts
from namm_lab.tasks.file_task import FileTask, read_rows
from namm_lab.tasks.frequencies import CommonWords, FrequentWords
from namm_lab.tasks.lists import Lists
from namm_lab.tasks.longbench import LongBench
from namm_lab.tasks.many_shot import ManyShot
from namm_lab.tasks.material import load_material
from namm_lab.tasks.needle import Needle
from namm_lab.tasks.niah import Niah
from namm_lab.tasks.passages import Passages
from namm_lab.tasks.perplexity import Perplexity
from namm_lab.tasks.repository import Repository
from namm_lab.tasks.ruler import Ruler
from namm_lab.tasks.sample import Sample
from namm_lab.tasks.sentences import Sentences
from namm_lab.tasks.summary import Summary
from namm_lab.tasks.task import Task
from namm_lab.tasks.values import Values
from namm_lab.tasks.variables import Variables
from namm_llm import UsageError

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Facts("fact"),
        Facts("word", words=True),
        Facts("keys", spacing=40, look_alikes=0.6),
        Values("values"),
        Lists("list"),
        Enumerations("entries"),
        Facts("missing", missing=0.5),
        Passages("passages"),
        Perplexity("prose"),
        Perplexity("code", code=True),
        Needle("needle"),
        Niah("niah_single_1", haystack="noise"),
        Niah("niah_single_2"),
        Niah("niah_single_3", value="uuid"),
        Niah("niah_multikey_1", keys=4),
        Niah("niah_multikey_2", haystack="needle"),
        Niah("niah_multikey_3", haystack="needle", key="uuid", value="uuid"),
        Niah("niah_multivalue", values=4),
        Niah("niah_multiquery", keys=4, queries=4),
        Niah("needles", keys=8, apart=True),
        Variables("vt"),
        CommonWords("cwe"),
        FrequentWords("fwe"),
        Answering("qa_1"),
        Answering("qa_2", two_hops=True),
        Sentences("sentences"),
        Summary("summary"),
        Conversation("conversation"),
        Repository("repository"),
        ManyShot("many_shot"),
    )
}
FILE_TASKS: dict[str, type[FileTask]] = {"longbench": LongBench, "ruler": Ruler}


def make_task(name: str, *, questions: int | None = None) -> Task:
    """A task by its name, or `longbench:FILE` and `ruler:FILE` for a jsonl file on disk. questions:
    about one document, if it can ask several. Raises UsageError or DocumentError.
    """
    kind, colon, path = name.partition(":")
    if colon and kind in FILE_TASKS:
        read_rows(Path(path))
        return FILE_TASKS[kind](name, path=Path(path))
    if name not in TASKS:
        close = get_close_matches(name, TASKS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        known = ", ".join((*TASKS, *(f"{kind}:FILE" for kind in FILE_TASKS)))
        raise UsageError(f"there is no task {name!r}{hint}; choose from {known}")
    return TASKS[name] if questions is None else replace(TASKS[name], questions=questions)


def draw_samples(
    task: Task | str,
    length: int,
    *,
    split: str = "test",
    seed: int = 0,
    count: int = 1,
    count_tokens: CountTokens,
    texts: str | os.PathLike[str] | None = None,
    questions: int | None = None,
) -> list[Sample]:
    """`count` samples whose documents have about `length` tokens, as `count_tokens` counts them.

    The same arguments give the same samples, and a larger `count` begins with them. split: train,
    validation or test, which share neither texts nor names nor values. texts: a folder of .txt, .md
    and .py files, instead of Python's own documentation and library.
    """
    task = make_task(task, questions=questions) if isinstance(task, str) else task
    if length < 1 or count < 1:
        raise UsageError(
            f"documents have 1 token or more, and there is 1 or more of them, not {length} and "
            f"{count}."
        )
    return task.draw_many(load_material(split, count_tokens, texts), length, seed, count)
