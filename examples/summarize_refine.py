"""A text gone through part by part, the summary so far taken along, with a focus; interrupted with
Ctrl-C it goes on where it stopped.

The bundled model only looks facts up and cannot really summarize: name one that follows
instructions for a summary worth reading. python -m examples.summarize_refine [MODEL]
"""

import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

from namm_llm import Runner, Summary, summarize

WORK = Path("summarize_refine.jsonl")  # what is finished; it goes with the last part


def main(
    model: str = "namm-tiny", characters: int = 12_000, part_tokens: int = 1024, work: Path = WORK
) -> Summary:
    runner = Runner.load(model, budget=0.25)
    text = topics["typesseq"][:characters]
    began = time.perf_counter()
    summary = summarize(
        text,
        runner,
        method="refine",
        part_tokens=part_tokens,
        length=2,
        focus="slices of sequences",
        work=work,
        on_progress=lambda done, total: print(f"\r{done} of {total} tokens", end="", flush=True),
    )  # fmt: skip
    print()
    for number, part in enumerate(summary.parts, 1):
        print(f"after part {number}: {part.summary[:80]!r}")
    cache = summary.cache
    print(
        f"{summary.resumed} of {summary.calls} answers from {work.name}; kept at most "
        f"{cache.nbytes / 1e6:.1f} MB"
    )
    print(f"{summary.usage.input_tokens} tokens read, {time.perf_counter() - began:.1f} s")
    return summary


if __name__ == "__main__":
    main(*sys.argv[1:2])
