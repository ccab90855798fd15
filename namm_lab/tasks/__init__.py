"""Tasks: documents of any length with questions about them, and how replies are scored. Data and
metrics; no model runs here.

    draw_samples("fact", 4000, seed=1, count=8, count_tokens=lambda text: len(runner.encode(text)))
      -> [Sample(task, document, questions=(Question(prompt, answer, expected, metric), ...)), ...]
    question.score(reply) -> 0..1

`train`, `validation` and `test` share no text, no name and no value. Texts are Python's
documentation (prose) and library (code), or a user's folder. Files, bottom up: `words` (names),
`records` (kinds, phrasing), `texts`, `corpus`, `material` (all of one split), `metrics`, `sample`,
`task`, `placement`, then a file for each kind of task, and `registry` with the table. A new task is
one small file and one row.
"""

from namm_lab.tasks.registry import TASKS, draw_samples, make_task
from namm_lab.tasks.sample import Question, Sample
from namm_lab.tasks.task import Task

__all__ = ["TASKS", "Question", "Sample", "Task", "draw_samples", "make_task"]
