"""LlamaIndex: a vector index over a long text, with real embeddings, and questions to it. Run it
with `python -m examples.llama_index_query_engine`; it needs `pip install
'namm-llm[llama-index,examples]'` and no network.
"""

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.namm import NammLLM

from examples.demo import build
from examples.llama_index_shared import MiniLM, numbers

# The bundled model knows this form; a model that follows instructions takes LlamaIndex's own
# template.
TEMPLATE = PromptTemplate("{context_str}\n\n{query_str}")


def main(records: int = 32, questions: int = 4) -> int:
    # NammLLM(model="meta-llama/Llama-3.2-1B-Instruct", quantization="nf4", budget=0.25) for a real
    # one
    llm = NammLLM()
    text, facts = build(llm.runner, count=records)
    splitter = SentenceSplitter(chunk_size=128, chunk_overlap=16, tokenizer=llm.tokenize)
    index = VectorStoreIndex.from_documents(
        [Document(text=text)], transformations=[splitter], embed_model=MiniLM()
    )
    engine = index.as_query_engine(llm=llm, similarity_top_k=3, text_qa_template=TEMPLATE)
    print(f"{llm.runner.count_tokens(text)} tokens in {len(index.docstore.docs)} pieces")
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
