"""LangChain: documents are read once into memories; a question goes to those that are found.

pip install 'namm-llm[langchain,examples]'; python -m examples.langchain_index
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from langchain_core.documents import Document
from langchain_namm import ChatNamm, NammIndex

from examples.demo import build
from examples.langchain_rag import MiniLM
from namm_llm import Generation, Runner


def main(documents: int = 4, records: int = 4, questions: int = 4) -> int:
    """How many answers are right."""
    built = [build(Runner.load(), count=records, seed=seed) for seed in range(documents)]
    texts = [Document(page_content=text) for text, _ in built]
    chat, right = ChatNamm(budget=0.5, max_tokens=40), 0
    with TemporaryDirectory() as folder:
        began = perf_counter()
        index = NammIndex.from_documents(texts, chat, MiniLM(), Path(folder), k=2, characters=200)
        print(f"{documents} documents read once, {perf_counter() - began:.1f} s")
        for _, (record, *_) in built[:questions]:
            began = perf_counter()
            answer = index.invoke(record.question)
            right += record.answered_by(answer.text)
            print(f"{record.question}\n  {answer.text}")
            kept = [text for source in answer.sources for text in source.kept]
            print(f"  kept sentence: {[text for text in kept if record.answered_by(text)][:1]}")
            read = sum(_read(source.answer) for source in answer.sources)
            print(f"  read {read} tokens, {perf_counter() - began:.1f} s")
    return right


def _read(answer: Generation) -> int:
    return answer.usage.input_tokens - answer.usage.cached_tokens


if __name__ == "__main__":
    print(f"{main()} right")
