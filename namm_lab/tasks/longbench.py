"""LongBench (arXiv 2308.14508) from its files: `input, context, answers, all_classes, dataset` in
lines of JSON.

Prompts and reply lengths are the published ones (config/ of THUDM/LongBench, MIT licence), kept in
`longbench.json`. What stands before the context, and the context, are the document; what follows it
is the question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from namm_lab.tasks.file_task import FileTask, Row
from namm_lab.tasks.sample import Question, Sample
from namm_llm import DocumentError

PROMPTS = Path(__file__).with_name("longbench.json")
FIRST_LINE = frozenset(
    {"trec", "triviaqa", "samsum", "lsht"}
)  # of a reply counts, as in LongBench's eval.py


@dataclass(frozen=True)
class LongBench(FileTask):
    """One dataset of LongBench, or of LongBench-E."""

    def sample(self, row: Row) -> Sample:
        name = str(row["dataset"]).removesuffix("_e")
        if name not in (known := _prompts()):
            raise DocumentError(
                f"{self.path}: there is no LongBench dataset {name!r}; known are "
                f"{', '.join(known)}."
            )
        before, _, after = known[name]["prompt"].partition("{context}")
        answers = tuple(map(str, row["answers"]))
        question = Question(
            # a frame puts line breaks between document and question
            prompt=after.lstrip("\n").replace("{input}", str(row["input"])),
            answer=answers[0],
            expected=answers,
            metric=known[name]["metric"],
            max_tokens=known[name]["max_tokens"],
            choices=tuple(map(str, row.get("all_classes") or ())),
            first_line=name in FIRST_LINE,
        )
        return Sample(self.name, before + str(row["context"]), (question,))


@cache
def _prompts() -> dict[str, dict[str, Any]]:
    return dict(json.loads(PROMPTS.read_text("utf-8")))
