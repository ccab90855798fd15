"""The loop: cells x tasks x sides; what a file already holds is not measured again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

from namm_lab.bench import measuring
from namm_lab.bench.child import measure_apart
from namm_lab.bench.plan import Benchmark, Cell
from namm_lab.bench.rows import BenchFile, key_of, memory_row, timed_row
from namm_lab.bench.shapes import shape_named
from namm_lab.bench.sides import REFERENCE, CacheSide
from namm_lab.bench.subject import Subject, check_fits, load
from namm_lab.evaluate import Row

OnRow = Callable[[Row, int, int], None]
Tick = Callable[[str], None]
WARM_UP = 1024  # tokens


def run_benchmark(
    plan: Benchmark,
    *,
    file: BenchFile | None = None,
    on_row: OnRow | None = None,
    on_note: Tick | None = None,
    others: Sequence[CacheSide] = (),
    again: bool = False,
) -> list[Row]:
    """All rows of the plan, those from the file as they are. on_row: called with a row, how many
    there are, and how many there will be. on_note: told what is being done. others: sides beside
    the plan's own. again: what the file holds is measured anew, and the new rows take the place of
    the old ones. Raises NammError, for a shape that does not fit before it begins.
    """
    for cell in plan.cells():
        check_fits(plan, cell)
    sides = [*plan.sides(), *others]
    tasks = sorted(
        dict.fromkeys(plan.tasks), key=("memory", "prefill", "decode").index
    )  # memory first, while no weights lie here
    blocks = [(task, cell) for task in tasks for cell in plan.cells()]
    total = sum(task in side.tasks for task, _ in blocks for side in sides)
    bench = _Bench(plan, sides, file, on_note or (lambda text: None), again)
    rows: list[Row] = []
    for task, cell in blocks:
        for row in bench.block(task, cell):
            rows.append(row)
            if on_row is not None:
                on_row(row, len(rows), total)
    return rows


class _Bench:
    """Holds the model that is measured now, until another quantisation is asked for."""

    def __init__(
        self,
        plan: Benchmark,
        sides: Sequence[CacheSide],
        file: BenchFile | None,
        tick: Tick,
        again: bool,
    ) -> None:
        self._plan = plan
        self._sides = sides
        self._file = file
        self._tick = tick
        self._again = again
        self._held: tuple[str | None, Subject] | None = None

    def block(self, task: str, cell: Cell) -> list[Row]:
        """One row for each side, all measured together unless all are in the file."""
        sides = [side for side in self._sides if task in side.tasks]
        keys = [key_of(self._plan, cell, task, side, self._dtype()) for side in sides]
        found = [
            self._file.find(key) if self._file is not None and not self._again else None
            for key in keys
        ]
        kept = [row for row in found if row is not None]
        if len(kept) == len(keys):
            return kept
        new = (
            self._memory(cell, sides, keys, found)
            if task == "memory"
            else self._timed(task, cell, sides, keys, found)
        )
        if self._file is not None:
            for row, old in zip(new, found, strict=True):
                if old is None:
                    self._file.add(row)
        return new

    def _dtype(self) -> str:
        plan = self._plan
        return (
            plan.dtype
            if plan.shape is None
            else str(plan.torch_dtype(shape_named(plan.shape, plan.layers))).removeprefix("torch.")
        )

    def _timed(
        self,
        task: str,
        cell: Cell,
        sides: Sequence[CacheSide],
        keys: list[Row],
        found: list[Row | None],
    ) -> list[Row]:
        """Sides whose rows are there have no turn, but the reference always has: a ratio is of the
        same round.
        """
        turns = [n for n, side in enumerate(sides) if found[n] is None or side.name == REFERENCE]
        having = [sides[n] for n in turns]
        subject = self._subject(cell.quantization)
        measuring.warm_up(subject, having, cell, WARM_UP)
        if task == "prefill":
            timed = measuring.prefill(subject, having, cell, self._plan.runs, self._tick)
        else:
            timed = measuring.decode(
                subject, having, cell, self._plan.runs, self._plan.decoded, self._tick
            )
        reference = next(
            (t for side, t in zip(having, timed, strict=True) if side.name == REFERENCE), None
        )
        made = {n: timed_row(keys[n], t, reference) for n, t in zip(turns, timed, strict=True)}
        return [old if old is not None else made[n] for n, old in enumerate(found)]

    def _memory(
        self, cell: Cell, sides: Sequence[CacheSide], keys: list[Row], found: list[Row | None]
    ) -> list[Row]:
        rows: list[Row] = []
        for side, key, old in zip(sides, keys, found, strict=True):
            self._tick(f"memory, {cell.length} tokens: {side.label}")
            reference = rows[0] if rows and rows[0]["side"] == REFERENCE else None
            rows.append(
                old if old is not None else memory_row(key, self._peak(cell, side), reference)
            )
        return rows

    def _peak(self, cell: Cell, side: CacheSide) -> Row:
        own = side.peak({"batch": cell.batch, "length": cell.length})
        return own if own is not None else measure_apart(self._plan, cell, self._sides.index(side))

    def _subject(self, quantization: str | None) -> Subject:
        if self._held is None or self._held[0] != quantization:
            self._held = None
            gc.collect()
            self._tick("building the model")
            self._held = (quantization, load(self._plan, quantization))
        return self._held[1]
