"""Evaluation: policies x budgets x tasks x lengths on one model, the same prompts for all, the full cache as the reference.

Two modes, never mixed in one row:

- `agnostic`: the document goes through the evicting cache and is settled; only then comes the question.
- `aware`: document and question are one prompt and the question stands before the last update, as in kvpress' query-aware runs. Our
  updates begin while the document is read, before the question is seen; theirs is one, after it. The question itself is never evicted.

`plan` says what is measured, `reading` runs the model, `measuring` makes scores of it, `rows` are the results, `running` is the loop, and
`plot` draws score against what was kept.
"""

from namm_llm.tasks.evaluation.figure import legend_below, load_matplotlib, save_figure
from namm_llm.tasks.evaluation.measuring import Measured, measure
from namm_llm.tasks.evaluation.plan import Evaluation, Setting
from namm_llm.tasks.evaluation.plot import draw_scores
from namm_llm.tasks.evaluation.rowfile import JsonRows, Row
from namm_llm.tasks.evaluation.rows import RowFile, label_of
from namm_llm.tasks.evaluation.running import evaluate

__all__ = [
    "Evaluation",
    "JsonRows",
    "Measured",
    "Row",
    "RowFile",
    "Setting",
    "draw_scores",
    "evaluate",
    "label_of",
    "legend_below",
    "load_matplotlib",
    "measure",
    "save_figure",
]
