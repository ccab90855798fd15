"""`summarize` and `stream_summary`: texts in, summaries out."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, overload

from namm_llm.config import SamplingParams
from namm_llm.document import Document
from namm_llm.documents import check_text
from namm_llm.engine.cancel import AnyOf, CancelFlag
from namm_llm.engine.results import OnProgress
from namm_llm.errors import UsageError
from namm_llm.runner import Runner
from namm_llm.summaries.calls import Calls, Memory
from namm_llm.summaries.methods import Job, way_of
from namm_llm.summaries.plan import (
    LENGTH,
    METHOD,
    PART_TOKENS,
    Method,
    Plan,
    Room,
    check_options,
    make_plan,
)
from namm_llm.summaries.request import WHOLE, Request
from namm_llm.summaries.stream import SummaryStream
from namm_llm.summaries.summary import Summary
from namm_llm.summaries.work import WorkFile

Source = str | Document
Model = Runner | str | Mapping[str, Any] | None
Work = str | os.PathLike[str] | WorkFile | None


def stream_summary(
    text: Source,
    runner: Model = None,
    params: SamplingParams | None = None,
    *,
    method: Method = METHOD,
    length: int | str = LENGTH,
    focus: str | None = None,
    part_tokens: int = PART_TOKENS,
    work: Work = None,
    cancel: CancelFlag | None = None,
    on_progress: OnProgress | None = None,
    **overrides: Any,
) -> SummaryStream:
    """The summary of a text, or of a memory of one, in pieces, while it is written.

    runner: a `Runner`, a model's name, or arguments of `Runner.load`; the bundled model without it.
    params, overrides: as of `Runner.stream`; without them every answer has room for `length`.
    method: `one-pass` reads the whole text through the evicting cache. `map-reduce` summarizes
    parts of it side by side, and then their summaries, in as many levels as it takes. `refine` goes
    from part to part and takes the summary so far along. `auto`: one pass if text, request and
    answer fit into the model's trained positions, else map-reduce. length: about how many words, or
    `short`, `medium`, `long` (50, 150, 400). focus: what the summary is to be about. part_tokens:
    most tokens of a part; fewer where the model has no room for so many. work: a file that keeps
    each finished answer of a long text, so that the same call goes on where it was interrupted;
    removed at the end. A `WorkFile` is removed by whoever made it. on_progress: called with the
    tokens of the text that are read, and all of them; the parts that `work` holds count as read.

    ContextError if the text does not fit `one-pass`, or the model has too few positions for even a
    small part; DocumentError for an empty text and a work file that cannot be written; UsageError
    for wrong arguments.
    """
    request = check_options(method=method, length=length, focus=focus, part_tokens=part_tokens)
    params = (params or SamplingParams(max_tokens=request.max_tokens)).override(overrides)
    stopped = threading.Event()
    flag = AnyOf(stopped, cancel)
    if isinstance(text, Document):
        return _of_memory(text, method, request, params, flag, stopped)
    check_text(text)
    runner = _runner(runner)
    room = Room(runner, request, params)
    plan = make_plan(runner, text, method, room, part_tokens)
    file = work if isinstance(work, WorkFile) or work is None else WorkFile(work)
    shared = file is work  # there is more to come, so the last answer is kept too
    if file is not None and (shared or len(plan.spans) > 1):
        file.prepare()
    calls = Calls(runner, params, flag, file)
    job = Job(calls, request, room, plan, on_progress, keep_last=shared)
    parts = [text[span.start : span.stop] for span in plan.spans]
    return SummaryStream(
        plan, calls, way_of(plan)(job, parts), job.noted, stopped, file, is_own=not shared
    )


@overload
def summarize(
    texts: Source, runner: Model = None, params: SamplingParams | None = None, **options: Any
) -> Summary: ...


@overload
def summarize(
    texts: Sequence[Source],
    runner: Model = None,
    params: SamplingParams | None = None,
    **options: Any,
) -> list[Summary]: ...


def summarize(
    texts: Source | Sequence[Source],
    runner: Model = None,
    params: SamplingParams | None = None,
    *,
    work: Work = None,
    **options: Any,
) -> Summary | list[Summary]:
    """The summary of a text or of a memory of one; of several, one for each, in order. Arguments as
    of `stream_summary`.

    One summary of several texts is that of the texts put together. A list that is cancelled ends
    with the summary that was.
    """
    if isinstance(texts, (str, Document)):
        return _whole(stream_summary(texts, runner, params, work=work, **options))
    for text in texts:
        if isinstance(text, str):
            check_text(text)
    runner = _runner(runner)
    file = work if isinstance(work, WorkFile) or work is None else WorkFile(work)
    summaries = list[Summary]()
    for text in texts:
        summaries.append(_whole(stream_summary(text, runner, params, work=file, **options)))
        if summaries[-1].finish_reason == "cancelled":
            return summaries
    if file is not None and file is not work:
        file.remove()
    return summaries


def _runner(model: Model) -> Runner:
    match model:
        case Runner():
            return model
        case None:
            return Runner.load()
        case str():
            return Runner.load(model)
        case Mapping():
            return Runner.load(**model)
    raise UsageError(
        f"runner must be a Runner, a model's name or arguments of Runner.load, not {type(model).__name__}."
    )


def _of_memory(
    memory: Memory,
    method: str,
    request: Request,
    params: SamplingParams,
    flag: CancelFlag,
    stopped: threading.Event,
) -> SummaryStream:
    if method not in ("auto", "one-pass"):
        raise UsageError(
            f"a memory holds no text that could be cut into parts for {method}; summarize the text itself."
        )
    calls = Calls(Runner(memory.session), params, flag, None)
    pieces = calls.about(memory, request.text(WHOLE))
    return SummaryStream(Plan("one-pass", 0, ()), calls, pieces, [], stopped)


def _whole(stream: SummaryStream) -> Summary:
    for _ in stream:
        pass
    return stream.result
