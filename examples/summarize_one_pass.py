"""A long text summarized in one pass: read once through a cache that keeps a quarter of it, the
summary printed while it is written.

The bundled model only looks facts up and cannot really summarize: name one that follows
instructions for a summary worth reading. python -m examples.summarize_one_pass [MODEL]
"""

import sys
import time
from pydoc_data.topics import topics

from namm_llm import Runner, Summary, stream_summary


def main(model: str = "namm-tiny", characters: int = 12_000, sentences: int = 2) -> Summary:
    runner = Runner.load(model, budget=0.25)
    text = topics["typesseq"][:characters]
    began = time.perf_counter()
    stream = stream_summary(text, runner, length=sentences)
    print(f"{stream.plan.tokens} tokens, {runner.context_window} positions: {stream.plan.method}")
    for piece in stream:
        print(piece.text, end="", flush=True)
    summary = stream.result
    cache = summary.cache
    print(
        f"\nkept {cache.stored_tokens} of {cache.seen_tokens} tokens, {cache.nbytes / 1e6:.1f} "
        f"of {cache.full_nbytes / 1e6:.1f} MB"
    )
    print(f"{summary.usage.output_tokens} tokens written, {time.perf_counter() - began:.1f} s")
    return summary


if __name__ == "__main__":
    main(*sys.argv[1:2])
