"""LlamaIndex: a chat about a long text. LlamaIndex sends the whole chat with every turn; the model
reads only what is new in it, and answers come as they are written. Run it with `python -m
examples.llama_index_chat`; it needs `pip install 'namm-llm[llama-index]'` and no network.
"""

from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.llms.namm import NammLLM

from examples.demo import build
from examples.llama_index_shared import numbers


def main(records: int = 16, turns: int = 4) -> int:
    llm = NammLLM()  # NammLLM(budget=0.5) keeps half of the chat in memory
    text, facts = build(llm.runner, count=records)
    memory = ChatMemoryBuffer.from_defaults(
        chat_history=[
            ChatMessage(role="user", content=text),
            ChatMessage(role="assistant", content="Noted."),
        ],
        token_limit=llm.metadata.context_window,
        tokenizer_fn=llm.tokenize,
    )
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    print(f"a text of {llm.runner.count_tokens(text)} tokens")
    right = 0
    with numbers():
        for fact in facts[:: records // turns]:
            print(f"\n{fact.question}\n   ", end="")
            answer = engine.stream_chat(fact.question)
            for piece in answer.response_gen:
                print(piece, end="", flush=True)
            right += fact.answered_by(answer.response)
    print(f"\n{right} of {turns} are right, {len(engine.chat_history)} messages in the chat")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
