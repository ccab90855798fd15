"""Speed and memory, ours and others', on the same weights, in the same run; and what a model will
cost before it is bought.

`shapes` and `subject` are models to measure on, `sides` the caches that are compared, `measuring`
times them in turn, `child` finds the peak memory of a process of its own, `rows` are the results,
`running` is the loop, `cost` and `estimate` are arithmetic, `picture` draws.
"""

from namm_lab.bench.cost import Cost, cost_of
from namm_lab.bench.estimate import costs_of
from namm_lab.bench.picture import draw_rows
from namm_lab.bench.plan import Benchmark
from namm_lab.bench.rows import BenchFile
from namm_lab.bench.running import run_benchmark
from namm_lab.bench.sides import CacheSide, TimedReading
from namm_lab.bench.subject import save_model

__all__ = [
    "BenchFile",
    "Benchmark",
    "CacheSide",
    "Cost",
    "TimedReading",
    "cost_of",
    "costs_of",
    "draw_rows",
    "run_benchmark",
    "save_model",
]
