"""Evaluation: policies x budgets x tasks x lengths on one model, the same prompts for all, the full
cache as the reference.

Two modes, never mixed in one row:

- `agnostic`: the document goes through the evicting cache and is evicted; only then comes the
  question.
- `aware`: document and question are one prompt, and the question stands before the last eviction
  step, as in kvpress' query-aware runs. Our eviction steps begin while the document is read, before
  the question is seen; theirs is one, after it. The question itself is never evicted.

`plan` says what is measured, `reader` runs the model, `measurement` makes scores of it, `rows` are
the results, `loop` measures them, and `plot` draws score against what was kept.
"""

from namm_lab.evaluate.loop import evaluate
from namm_lab.evaluate.measurement import Measurement, measure
from namm_lab.evaluate.plan import CacheSetting, Evaluation
from namm_lab.evaluate.plot import draw_scores
from namm_lab.evaluate.rows import KEY, label_of, says_nothing

__all__ = [
    "KEY",
    "CacheSetting",
    "Evaluation",
    "Measurement",
    "draw_scores",
    "evaluate",
    "label_of",
    "measure",
    "says_nothing",
]
