"""LlamaIndex: BM25 finds the pieces of a long text by their words, without any embedding, and the
model answers from them. Run it with `python -m examples.llama_index_bm25`; it needs `pip install
'namm-llm[llama-index,examples]'` and no network.
"""

from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.llms.namm import NammLLM
from llama_index.retrievers.bm25 import BM25Retriever

from examples.demo import build
from examples.llama_index_shared import numbers

TEMPLATE = PromptTemplate("{context_str}\n\n{query_str}")  # the form that the bundled model knows


def main(records: int = 32, questions: int = 4) -> int:
    llm = NammLLM()
    text, facts = build(llm.runner, count=records)
    splitter = SentenceSplitter(chunk_size=128, chunk_overlap=16, tokenizer=llm.tokenize)
    nodes = splitter.get_nodes_from_documents([Document(text=text)])
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=3)
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm, text_qa_template=TEMPLATE)
    print(f"{llm.runner.count_tokens(text)} tokens in {len(nodes)} pieces")
    right = 0
    with numbers():
        for fact in facts[:: records // questions]:
            answer = str(engine.query(fact.question)).strip()
            right += fact.answered_by(answer)
            print(f"{fact.question}\n   {answer}")
    print(f"{right} of {questions} are right")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
