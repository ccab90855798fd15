"""LlamaIndex: a text that is longer than one call may be, gone through as a tree: its parts side by
side, then what was found in them. Run it with `python -m examples.llama_index_summary`; it needs
`pip install 'namm-llm[llama-index]'` and no network.

The bundled model looks up what a text states, and no more; a model that follows instructions can be
asked for a summary.
"""

from llama_index.core import Document, Settings, SummaryIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.namm import NammLLM

from examples.demo import build
from examples.llama_index_shared import numbers

TEMPLATE = PromptTemplate("{context_str}\n\n{query_str}")


def main(records: int = 16, questions: int = 4, context_window: int = 1000) -> int:
    llm = NammLLM(max_tokens=60, context_window=context_window)
    # LlamaIndex packs the parts into the context window by the model's own count
    llm.set_as_global_tokenizer()
    try:
        text, facts = build(llm.runner, count=records)
        splitter = SentenceSplitter(chunk_size=256, chunk_overlap=0)
        index = SummaryIndex.from_documents([Document(text=text)], transformations=[splitter])
        engine = index.as_query_engine(
            llm=llm, response_mode="tree_summarize", use_async=True, summary_template=TEMPLATE
        )
        print(f"{llm.runner.count_tokens(text)} tokens, at most {context_window} in a call")
        right = 0
        with numbers():
            for fact in facts[:: records // questions]:
                answer = str(engine.query(fact.question)).strip()
                right += fact.answered_by(answer)
                print(f"{fact.question}\n   {answer}")
        print(f"{right} of {questions} are right")
    finally:
        Settings.tokenizer = None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
