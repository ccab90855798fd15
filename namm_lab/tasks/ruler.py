"""RULER (arXiv 2404.06654) from the files that its generator writes: `index, input, outputs,
length` in lines of JSON.

The last line of `input` is the question; RULER's answer prefix, which it may end with, stays in it.
The metric goes by the file's place, `.../qa_1/validation.jsonl` or `qa_1.jsonl`: a part of the
answers is enough for `qa`, all are wanted elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from namm_lab.tasks.file_task import FileTask, Row
from namm_lab.tasks.sample import Question, Sample

REPLY_TOKENS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}


@dataclass(frozen=True)
class Ruler(FileTask):
    """One task of RULER at one length."""

    def sample(self, row: Row) -> Sample:
        family = self._family()
        document, _, question = str(row["input"]).rstrip().rpartition("\n")
        outputs = tuple(map(str, row["outputs"]))
        asked = Question(
            prompt=question + str(row.get("answer_prefix") or ""),
            answer=", ".join(outputs),
            expected=outputs,
            metric="string_match_part" if family == "qa" else "string_match_all",
            max_tokens=REPLY_TOKENS.get(family, 128),
        )
        return Sample(self.name, document, (asked,))

    def _family(self) -> str:
        stem = (
            self.path.parent.name
            if self.path.stem in ("validation", "test", "train")
            else self.path.stem
        )
        return stem.partition("_")[0]
