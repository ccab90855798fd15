"""Speed and memory, ours and others', on the same weights, in the same run; and what a model will
cost before it is bought.

`shapes` and `model` are models to measure on, `contenders` the caches that are compared, `rounds`
times them in turn, `child` finds the peak memory of a process of its own, `rows` are the results,
`loop` measures them, `cost` and `estimate` are arithmetic, `picture` draws.
"""

from namm_lab.bench.contenders import Contender, TimedReading
from namm_lab.bench.cost import Cost, cost_of
from namm_lab.bench.estimate import costs_of
from namm_lab.bench.loop import run_benchmark
from namm_lab.bench.model import save_model
from namm_lab.bench.picture import draw_rows
from namm_lab.bench.plan import Benchmark
from namm_lab.bench.rows import KEY, MEASUREMENT

__all__ = [
    "KEY",
    "MEASUREMENT",
    "Benchmark",
    "Contender",
    "Cost",
    "TimedReading",
    "cost_of",
    "costs_of",
    "draw_rows",
    "run_benchmark",
    "save_model",
]
