"""LlamaIndex: documents are read once into memories; a query goes to those that are found.

pip install 'namm-llm[llama-index,examples]'; python -m examples.llama_index_memories
"""

import sys
from tempfile import TemporaryDirectory
from time import perf_counter

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.llms.namm import NammLLM, NammQueryEngine, NammReader

from examples.demo import build
from examples.llama_index_shared import MiniLM
from namm_llm import Runner


def main(documents: int = 4, records: int = 4, questions: int = 4) -> int:
    built = [build(Runner.load(), count=records, seed=seed) for seed in range(documents)]
    llm, right = NammLLM(budget=0.5, max_tokens=40), 0
    with TemporaryDirectory() as folder:
        began = perf_counter()
        splitter = SentenceSplitter(chunk_size=120, chunk_overlap=0)
        pipeline = IngestionPipeline(transformations=[NammReader(llm, folder), splitter])
        nodes = pipeline.run(documents=[Document(text=text) for text, _ in built])
        print(f"{documents} documents read once, {perf_counter() - began:.1f} s")
        retriever = VectorStoreIndex(nodes, embed_model=MiniLM()).as_retriever(similarity_top_k=12)
        engine = NammQueryEngine(retriever, llm, k=2)
        for _, (record, *_) in built[:questions]:
            began = perf_counter()
            answer = engine.query(record.question)
            right += record.answered_by(str(answer))
            kept = [text for each in answer.metadata["sources"].values() for text in each["kept"]]
            print(f"{record.question}\n   {answer}")
            print(f"   kept sentence: {[text for text in kept if record.answered_by(text)][:1]}")
            print(f"   {perf_counter() - began:.1f} s")
    print(f"{right} of {questions} are right")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
