"""The loop: cells x tasks x contenders; what a file already holds is not measured again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone

from namm_lab.bench import rounds
from namm_lab.bench.child import measure_apart
from namm_lab.bench.contenders import REFERENCE, Contender, TimedReading
from namm_lab.bench.model import BenchModel, check_fits, load
from namm_lab.bench.needles import answered, draw_needles
from namm_lab.bench.plan import Benchmark, Cell
from namm_lab.bench.rows import key_of, memory_row, needles_row, timed_row
from namm_lab.bench.shapes import shape_named
from namm_lab.rows import Row, RowFile

OnRow = Callable[[Row, int, int], None]
Tick = Callable[[str], None]
WARM_UP = 1024  # tokens
_LATER = ("prefill", "decode", "needles")


def run_benchmark(
    plan: Benchmark,
    *,
    file: RowFile | None = None,
    on_row: OnRow | None = None,
    on_note: Tick | None = None,
    others: Sequence[Contender] = (),
    again: bool = False,
) -> list[Row]:
    """All rows of the plan, those from the file as they are.

    on_row: called with a row, how many there are, and how many there will be. on_note: told what is
    being done. others: contenders beside the plan's own. again: what the file holds is measured
    anew, and the new rows take the place of the old ones. Raises NammError; for a shape that does
    not fit, before it begins.
    """
    for cell in plan.cells():
        check_fits(plan, cell)
    contenders = [*plan.contenders(), *others]
    # memory first, while no weights lie here
    blocks = [("memory", cell) for cell in plan.cells() if "memory" in plan.tasks]
    blocks += [(task, cell) for cell in plan.cells() for task in _LATER if task in plan.tasks]
    total = sum(task in contender.tasks for task, _ in blocks for contender in contenders)
    bench = _Bench(plan, contenders, file, on_note or (lambda text: None), again)
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
        contenders: Sequence[Contender],
        file: RowFile | None,
        tick: Tick,
        again: bool,
    ) -> None:
        self._plan = plan
        self._contenders = contenders
        self._file = file
        self._tick = tick
        self._again = again
        self._held: tuple[str | None, BenchModel] | None = None
        self._read: dict[Cell, dict[str, TimedReading]] = {}

    def block(self, task: str, cell: Cell) -> list[Row]:
        """One row for each contender, all measured together unless all are in the file."""
        contenders = [contender for contender in self._contenders if task in contender.tasks]
        keys = [
            key_of(self._plan, cell, task, contender, self._dtype()) for contender in contenders
        ]
        found = [
            self._file.find(key) if self._file is not None and not self._again else None
            for key in keys
        ]
        kept = [row for row in found if row is not None]
        if len(kept) == len(keys):
            return kept
        measure = {"memory": self._memory, "needles": self._needles}.get(task, self._timed)
        new = []
        for row, old in zip(measure(cell, contenders, keys, found), found, strict=True):
            new.append(row)
            if self._file is not None and old is None:
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
        self, cell: Cell, contenders: Sequence[Contender], keys: list[Row], found: list[Row | None]
    ) -> list[Row]:
        """Contenders whose rows are there have no turn, but the reference always has one: a ratio
        is of the same round.
        """
        turns = [
            n
            for n, contender in enumerate(contenders)
            if found[n] is None or contender.name == REFERENCE
        ]
        having = [contenders[n] for n in turns]
        model = self._subject(cell.quantization)
        task = keys[0]["task"]
        read = self._read.get(cell, {})
        cold = [contender for contender in having if contender.label not in read]
        rounds.warm_up(model, cold, cell, WARM_UP)
        if task == "prefill":
            timed = rounds.prefill(model, having, cell, self._plan.runs, self._tick)
            labels = [contender.label for contender in having]
            last = [each.last for each in timed]
            self._read = {cell: {k: v for k, v in zip(labels, last, strict=True) if v is not None}}
        else:
            timed = rounds.decode(
                model, having, cell, self._plan.runs, self._plan.decoded, self._tick, read
            )
            self._read = {}
        together = datetime.now(timezone.utc).isoformat(timespec="seconds")
        reference = next(
            (t for contender, t in zip(having, timed, strict=True) if contender.name == REFERENCE),
            None,
        )
        made = {
            n: timed_row(keys[n], each, reference) | {"together": together}
            for n, each in zip(turns, timed, strict=True)
        }
        return [old if old is not None else made[n] for n, old in enumerate(found)]

    def _memory(
        self, cell: Cell, contenders: Sequence[Contender], keys: list[Row], found: list[Row | None]
    ) -> Iterator[Row]:
        first: Row | None = None
        for contender, key, old in zip(contenders, keys, found, strict=True):
            self._tick(f"memory, {cell.length} tokens: {contender.label}")
            reference = first if first and first["contender"] == REFERENCE else None
            row = (
                old if old is not None else memory_row(key, self._peak(cell, contender), reference)
            )
            first = first or row
            yield row

    def _needles(
        self, cell: Cell, contenders: Sequence[Contender], keys: list[Row], found: list[Row | None]
    ) -> Iterator[Row]:
        model = self._subject(cell.quantization)
        needles = draw_needles(model, cell, self._plan.needles)
        for contender, key, old in zip(contenders, keys, found, strict=True):
            self._tick(f"needles in {cell.length} tokens: {contender.label}")
            yield old if old else needles_row(key, *answered(model, contender, needles))

    def _peak(self, cell: Cell, contender: Contender) -> Row:
        own = contender.peak({"batch": cell.batch, "length": cell.length, "text": cell.text})
        return (
            own
            if own is not None
            else measure_apart(self._plan, cell, self._contenders.index(contender))
        )

    def _subject(self, quantization: str | None) -> BenchModel:
        if self._held is None or self._held[0] != quantization:
            self._held = None
            gc.collect()
            self._tick("building the model")
            self._held = (quantization, load(self._plan, quantization))
        return self._held[1]
