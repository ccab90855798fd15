"""One long text, ten questions, read once: the context stands first in LangChain's "stuff" prompt,
and what is shared is not read again.

pip install 'namm-llm[langchain]'; python -m examples.langchain_ten_questions
"""

import time

from langchain_core.prompts import ChatPromptTemplate
from langchain_namm import ChatNamm

from examples.demo import RECORDS, build
from namm_llm import Runner


def main(records: int = RECORDS, questions: int = 10) -> list[int]:
    """Tokens that were read for each question."""
    text, stated = build(Runner.load(), count=records)
    chat = ChatNamm(budget=0.25, max_tokens=40)
    chain = ChatPromptTemplate([("user", "{context}\n\n{question}")]) | chat
    read = []
    for record in stated[:: max(1, records // questions)][:questions]:
        began = time.perf_counter()
        answer = chain.invoke({"context": text, "question": record.question})
        used, cache = answer.usage_metadata, answer.response_metadata["namm"]
        read.append(used["input_tokens"] - used["input_token_details"]["cache_read"])
        print(
            f"{record.question}\n  {answer.text.strip()} "
            f"({'right' if record.answered_by(answer.text) else 'wrong'})"
        )
        print(
            f"  read {read[-1]} of {used['input_tokens']} tokens, kept {cache['stored_tokens']}, "
            f"{time.perf_counter() - began:.1f} s"
        )
    return read


if __name__ == "__main__":
    main()
