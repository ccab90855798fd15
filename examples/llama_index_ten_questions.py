"""LlamaIndex: a long document is read once, three quarters of its cache are thrown away, the rest
is saved; then ten questions are asked, each of which reads only itself. Run it with `python -m
examples.llama_index_ten_questions`; it needs `pip install 'namm-llm[llama-index]'` and no network.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from llama_index.core.llms import ChatMessage
from llama_index.llms.namm import NammLLM

from examples.demo import build
from examples.llama_index_shared import numbers
from namm_llm import Runner

BUDGET = 0.25
QUESTIONS = 10


def main(records: int = 64) -> int:
    runner = Runner.load(budget=BUDGET)
    text, facts = build(runner, count=records)
    with TemporaryDirectory() as folder:
        began = perf_counter()
        document = runner.read(text)
        document.save(Path(folder) / "help.namm")
        kept = document.info()
        print(
            f"{kept['seen_tokens']} tokens read once in {perf_counter() - began:.1f} s, "
            f"{kept['stored_tokens']} of them kept"
        )

        llm = NammLLM(
            budget=BUDGET, memory=Path(folder) / "help.namm"
        )  # as a retriever hands it over: a file and no text
        right, began = 0, perf_counter()
        with numbers():
            for fact in facts[:: max(records // QUESTIONS, 1)][:QUESTIONS]:
                answer = llm.chat([ChatMessage(content=fact.question)]).message.content.strip()
                right += fact.answered_by(answer)
                print(f"{fact.question}\n   {answer}")
    print(f"{right} of {QUESTIONS} are right, all ten in {perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
