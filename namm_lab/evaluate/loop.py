"""The loop of an evaluation: every setting on the same samples, the full cache first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from namm_lab.evaluate.measurement import measure
from namm_lab.evaluate.plan import CacheSetting, Evaluation, Mode
from namm_lab.evaluate.rows import key_of, row_of, says_nothing
from namm_lab.rows import Row, RowFile
from namm_lab.tasks.corpus import CountTokens
from namm_lab.tasks.material import load_material
from namm_lab.tasks.registry import draw_samples, make_task
from namm_lab.tasks.sample import Sample
from namm_llm import ContextError, Runner, UsageError
from namm_llm.models.own_namm import own_namm

FRAME = 64
"""Tokens of a chat template, at most."""
OnRow = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class _Cell:
    """All settings on the same samples."""

    task: str
    length: int
    mode: Mode
    samples: list[Sample]


def evaluate(
    runner: Runner, plan: Evaluation, *, file: RowFile | None = None, on_row: OnRow | None = None
) -> list[Row]:
    """One row for each task, length, mode and setting, in this order. The runner's own cache
    settings do not matter.

    file: rows in it that measured the same are taken from there, new ones are added one by one.
    on_row: called with each row, its number and how many there will be. Raises what
    `Evaluation.settings` and `draw_samples` raise, and ContextError for documents that are too
    long.
    """
    settings = plan.settings(own_namm(runner.model_id))
    cells = list(_cells(runner, plan))
    if not cells:
        raise UsageError(
            f"nothing is asked in {', '.join(plan.tasks)}, so there is no mode aware to measure."
        )
    texts = load_material(plan.split, _counter(runner), plan.texts).fingerprint
    rows: list[Row] = []
    total = len(cells) * len(settings)
    for cell in cells:
        full: Row | None = None
        for setting in settings:
            if full is not None and says_nothing(full, plan.least_full):
                total -= 1
                continue
            key = key_of(runner, plan, cell.task, cell.length, cell.mode, setting, texts)
            row = file.find(key) if file is not None else None
            if row is None:
                row = _measured(runner, cell, setting, key, full)
                if file is not None:
                    file.add(row)
            full = row if full is None else full
            rows.append(row)
            if on_row is not None:
                on_row(row, len(rows), total)
    return rows


def _measured(
    runner: Runner, cell: _Cell, setting: CacheSetting, key: Row, full: Row | None
) -> Row:
    measured = measure(runner.with_cache(setting.config), cell.samples, cell.mode)
    return row_of(key, measured, cell.samples, full["score"] if full is not None else None)


def _cells(runner: Runner, plan: Evaluation) -> Iterator[_Cell]:
    for name in dict.fromkeys(plan.tasks):
        task = make_task(name, questions=plan.questions)
        for length in dict.fromkeys(plan.lengths):
            samples = draw_samples(
                task,
                length,
                split=plan.split,
                seed=plan.seed,
                count=plan.samples,
                count_tokens=_counter(runner),
                texts=plan.texts,
            )
            _check_fits(runner, samples)
            for mode in dict.fromkeys(plan.modes):
                if mode == "agnostic" or not samples[0].questions[0].is_continuation:
                    yield _Cell(name, length, mode, samples)


def _counter(runner: Runner) -> CountTokens:
    """Tokens of a text alone, without a chat template."""
    return lambda text: len(runner.encode(text))


def _check_fits(runner: Runner, samples: list[Sample]) -> None:
    """ContextError for a sample that needs more positions than the model was trained on."""
    positions, count = runner.context_window, _counter(runner)
    for sample in samples if positions is not None and not runner.session.reads_any_length else ():
        longest = max(
            count(each.prompt + (each.answer if each.is_continuation else ""))
            for each in sample.questions
        )
        reply = max(question.max_tokens for question in sample.questions)
        tokens = count(sample.document) + longest + reply + FRAME
        if positions is not None and tokens > positions:
            raise ContextError(
                f"a document of task {sample.task} needs {tokens} positions with its question and "
                f"answer, but {runner.model_id} was trained on {positions}: ask for a shorter "
                "length."
            )
