"""Evaluation: policies x budgets x tasks x lengths on one model, the same prompts for all, the full
cache as the reference.

Two modes, never mixed in one row:

- `agnostic`: the document goes through the evicting cache and is retained; only then comes the
question.
- `aware`: document and question are one prompt and the question stands before the last update, as
in kvpress' query-aware runs. Our
  updates begin while the document is read, before the question is seen; theirs is one, after it. The question itself is never evicted.

`plan` says what is measured, `reading` runs the model, `measuring` makes scores of it, `rows` are
the results, `running` is the loop, and `plot` draws score against what was kept.
"""

from namm_lab.evaluate.figure import legend_below, load_matplotlib, save_figure
from namm_lab.evaluate.measuring import Measured, measure
from namm_lab.evaluate.plan import Evaluation, Setting
from namm_lab.evaluate.plot import draw_scores
from namm_lab.evaluate.rowfile import JsonRows, Row
from namm_lab.evaluate.rows import RowFile, label_of
from namm_lab.evaluate.running import evaluate

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
