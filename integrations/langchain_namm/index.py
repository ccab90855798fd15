"""`NammIndex`: documents are read once into memories; a question goes to those that were found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from namm_integrations.retrieval import KEY, Combined, MemoryFolder, ask_documents
from namm_integrations.threads import call_in_thread

from langchain_namm.chat import ChatNamm


class NammReader(BaseDocumentTransformer):
    """Reads each document into a memory and names its file in `metadata["namm"]`.

    chat: whose model and cache settings read them. folder: where the memories are kept; what is
    there already is not read again.
    """

    def __init__(self, chat: ChatNamm, folder: str | os.PathLike[str]) -> None:
        self._chat = chat
        self._folder = MemoryFolder(Path(folder))

    def transform_documents(
        self, documents: Sequence[Document], **kwargs: Any
    ) -> Sequence[Document]:
        """The same documents with two more entries in their metadata, `namm` and `namm_sha256`."""
        runner = self._chat._call().runner
        return [
            Document(
                page_content=each.page_content,
                metadata=each.metadata | self._folder.add(runner, each.page_content),
                id=each.id,
            )
            for each in documents
        ]


class NammIndex(Runnable[str, Combined]):
    """Answers a question from the documents that a vector store finds, each of which was read once.

    chat: asks them. k: how many documents are asked, in one batch. hits: how many pieces are looked
    at to find them. combine: ask the documents joined as one, instead of each by itself.
    """

    def __init__(
        self,
        chat: ChatNamm,
        store: VectorStore,
        *,
        k: int = 3,
        hits: int = 12,
        combine: bool = False,
    ) -> None:
        self.chat, self.store, self.k, self.hits, self.combine = chat, store, k, hits, combine

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        chat: ChatNamm,
        embedding: Embeddings,
        folder: str | os.PathLike[str],
        *,
        characters: int = 1000,
        **options: Any,
    ) -> NammIndex:
        """Read documents into memories in `folder`; embed pieces of so many characters."""
        store = InMemoryVectorStore(embedding)
        read = NammReader(chat, folder).transform_documents(list(documents))
        store.add_documents([piece for each in read for piece in _pieces(each, characters)])
        return cls(chat, store, **options)

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Combined:
        """The answer with its sources. kwargs: settings of this call. UsageError if nothing that
        was read is found.
        """
        return self._call_with_config(lambda asked: self._ask(asked, kwargs), input, config)

    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Combined:
        """As `invoke`; cancelling it stops the model."""
        return await call_in_thread(lambda cancel: self._ask(input, kwargs, cancel))

    def _ask(self, question: str, given: dict[str, Any], cancel: Any = None) -> Combined:
        hits = self.store.similarity_search(question, k=self.hits)
        files = list(dict.fromkeys(hit.metadata[KEY] for hit in hits if KEY in hit.metadata))
        call = self.chat._folded(dict(given))._call()
        owner = self.chat._runners
        options = {"owner": owner, "combine": self.combine, "cancel": cancel}
        return ask_documents(call, files[: self.k], question, **options)


def _pieces(document: Document, characters: int) -> list[Document]:
    """Parts that end at white space where they can."""
    text, parts = document.page_content, []
    while text:
        border = len(text) if len(text) <= characters else text.rfind(" ", 1, characters) + 1
        border = border or characters
        parts.append(Document(page_content=text[:border], metadata=document.metadata))
        text = text[border:]
    return parts
