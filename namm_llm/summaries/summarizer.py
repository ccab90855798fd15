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
from namm_llm.summaries.calls import Calls
from namm_llm.summaries.methods import Job
from namm_llm.summaries.plan import (
    LENGTH,
    METHOD,
    PART_TOKENS,
    Method,
    Plan,
    check_options,
    make_plan,
)
from namm_llm.summaries.request import WHOLE
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
    """The summary of a text, or of a document that was read, in pieces, while it is written.

    Args:
        text: of any length, or a `Document`.
        runner: a `Runner`, a model's name, or arguments of `Runner.load`; the bundled model if
            None.
        params: as of `Runner.stream`; if None, each answer has enough tokens for `length`.
        method: `one-pass` reads the whole text through the evicting cache. `map-reduce` summarizes
            parts of it side by side, and then their summaries, in as many levels as it takes.
            `refine` goes from part to part and takes the summary so far along. `auto`: one pass if
            text, request and answer fit into the model's trained positions, else map-reduce.
        length: about how many sentences, or `short`, `medium`, `long` (2, 5, 12).
        focus: what the summary is to be about.
        part_tokens: most tokens of a part; fewer if the model has no positions for so many.
        work: a file that keeps each finished answer of a long text, so that the same call goes on
            after an interruption; removed at the end. A `WorkFile` is removed by whoever made it.
        cancel: ends the summary within a token.
        on_progress: called with the tokens of the text that are read, and all of them; the parts
            that `work` holds count as read.
        overrides: sampling parameters.

    Raises:
        ContextError: the text does not fit `one-pass`, or not even a small part fits the model.
        DocumentError: the text is empty, or the work file cannot be written.
        UsageError: wrong arguments.
    """
    request = check_options(method=method, length=length, focus=focus, part_tokens=part_tokens)
    params = (params or SamplingParams(max_tokens=request.max_tokens)).override(overrides)
    if params.stop_loops is None:
        params = params.override({"stop_loops": True})
    stopped = threading.Event()
    flag = AnyOf(stopped, cancel)
    if isinstance(text, Document):
        calls = Calls(Runner(text.session), request, params, flag)
        return _of_document(text, method, calls, stopped)
    check_text(text)
    file = _work_file(work)
    is_shared = file is work  # more texts follow, so the last answer is kept too
    calls = Calls(_runner(runner), request, params, flag, file)
    plan = make_plan(calls, text, method, part_tokens)
    if file is not None and (is_shared or len(plan.spans) > 1):
        file.prepare()
    job = Job(calls, plan, on_progress, keep_last=is_shared)
    pieces = job.pieces([text[span.start : span.stop] for span in plan.spans])
    return SummaryStream(job, pieces, stopped, file, is_own=not is_shared)


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
    """The summary of a text or of a document that was read; of several, one for each, in order.

    Arguments and errors as of `stream_summary`. One summary of several texts is that of the texts
    put together. A list that is cancelled ends with the summary that was.
    """
    if isinstance(texts, (str, Document)):
        return _whole(stream_summary(texts, runner, params, work=work, **options))
    for text in texts:
        if isinstance(text, str):
            check_text(text)
    runner, file = _runner(runner), _work_file(work)
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
        "runner must be a Runner, a model's name or arguments of Runner.load, not "
        f"{type(model).__name__}."
    )


def _work_file(work: Work) -> WorkFile | None:
    return work if isinstance(work, WorkFile) or work is None else WorkFile(work)


def _of_document(
    document: Document, method: str, calls: Calls, stopped: threading.Event
) -> SummaryStream:
    if method not in ("auto", "one-pass"):
        raise UsageError(
            f"a memory holds no text that could be cut into parts for {method}; summarize the text "
            "itself."
        )
    job = Job(calls, Plan("one-pass", 0, ()))
    return SummaryStream(job, calls.about(document, WHOLE), stopped)


def _whole(stream: SummaryStream) -> Summary:
    for _ in stream:
        pass
    return stream.result
