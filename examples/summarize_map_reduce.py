"""A text that is longer than the model's context, summarized part by part, and then the summaries
together.

The bundled model only looks facts up and cannot really summarize: name one that follows
instructions for a summary worth reading. python -m examples.summarize_map_reduce [MODEL]
"""

import sys
import time
from pydoc_data.topics import topics

from namm_llm import Runner, Summary, stream_summary


def main(model: str = "namm-tiny", positions: int | None = None, sentences: int = 2) -> Summary:
    """positions: how long the text is to be, for a model that knows no limit."""
    runner = Runner.load(model, budget=0.25)
    wanted = positions or runner.context_window or 8192
    text = ""
    for topic in topics.values():
        text += f"{topic}\n\n"
        if len(text) > 6 * wanted:  # characters: more than there are positions, in English
            break
    began = time.perf_counter()
    stream = stream_summary(
        text,
        runner,
        method="map-reduce" if positions else "auto",
        length=sentences,
        part_tokens=2048,
    )
    parts = len(stream.plan.spans)
    print(
        f"{stream.plan.tokens} tokens, {runner.context_window} positions: {stream.plan.method} "
        f"in {parts} parts"
    )
    summary = "".join(piece.text for piece in stream)
    for number, part in enumerate(stream.result.parts[:4], 1):
        print(f"part {number}, {part.tokens} tokens: {part.summary[:80]!r}")
    print(f"all: {summary.strip()}")
    cache = stream.result.cache
    print(
        f"{stream.result.calls} answers; kept at most {cache.nbytes / 1e6:.1f} of "
        f"{cache.full_nbytes / 1e6:.1f} MB for one text"
    )
    print(f"{stream.result.usage.input_tokens} tokens read, {time.perf_counter() - began:.1f} s")
    return stream.result


if __name__ == "__main__":
    main(*sys.argv[1:2])
