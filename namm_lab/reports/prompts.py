"""What a model makes of short documents under several prompts: answers that are right, answers that
are cut, and what summaries hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from namm_lab.rows import Row
from namm_lab.tasks.short_documents import SETS, Set, ShortDocument, short_documents
from namm_llm import Generation, Runner

QUESTIONS = {
    "question alone": "{question}",
    "question and answer": (
        "Answer the question about the text above.\nQuestion: {question}\nAnswer:"
    ),
    "answer the question": "Answer the question about the text above.\nQuestion: {question}",
    "one sentence": (
        "Answer the question about the text above in one sentence.\nQuestion: {question}"
    ),
    "briefly": "Answer briefly from the text above: {question}",
    "briefly, only the text": ("Answer briefly, using only the text above.\nQuestion: {question}"),
    "briefly, behind": "Question: {question}\nAnswer briefly, using only the text above.",
    "as briefly as possible": (
        "Answer the question about the text above as briefly as possible.\nQuestion: {question}"
    ),
    "words of the text": "Answer the question with words of the text above.\nQuestion: {question}",
    "one sentence, behind": "{question} Answer in one sentence.",
}
SUMMARIES = {
    "words": "Summarize the text above in about 50 words.",
    "no length": "Summarize the text above.",
    "3 sentences": "Summarize the text above in 3 sentences.",
    "three sentences": "Summarize the text above in three sentences.",
    "points": "Summarize the text above in 5 short points.",
    "facts": ("Write down the 5 most important facts of the text above, one short sentence each."),
}
ANSWER_TOKENS, SUMMARY_TOKENS = 32, 160


@click.command("prompts")
@click.option("--model", required=True, help="A model that follows instructions.")
@click.option("--set", "name", type=click.Choice(SETS), default="choosing", show_default=True)
@click.option("--summaries", is_flag=True, help="Prompts for summaries instead of questions.")
def prompts(model: str, name: Set, summaries: bool) -> None:
    """Prompts for questions about a document, or for its summary, on twelve short documents."""
    runner, documents = Runner.load(model), short_documents(name)
    measured = summary_rows(runner, documents) if summaries else question_rows(runner, documents)
    for row in measured:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))


def question_rows(
    runner: Runner, documents: list[ShortDocument], chosen: Mapping[str, str] = QUESTIONS
) -> Iterator[Row]:
    """One row a prompt: right answers, right ones that are whole, and those that were cut."""
    texts = list(chosen.values())
    found = list[list[tuple[bool, Generation]]]([[] for _ in texts])
    for document in documents:
        memory = runner.read(document.text)
        for text, answers in zip(texts, found, strict=True):
            asked = [_message(text, question=each.text) for each in document.questions]
            given = memory.ask_many(asked, max_tokens=ANSWER_TOKENS)
            answers += [
                (question.is_right(answer.text), answer)
                for question, answer in zip(document.questions, given, strict=True)
            ]
    for prompt, answers in zip(chosen, found, strict=True):
        whole = [right and answer.finish_reason == "stop" for right, answer in answers]
        yield {
            "prompt": prompt,
            "right": sum(right for right, _ in answers),
            "right and whole": sum(whole),
            **_lengths([answer for _, answer in answers]),
        }


def summary_rows(
    runner: Runner, documents: list[ShortDocument], chosen: Mapping[str, str] = SUMMARIES
) -> Iterator[Row]:
    """One row a prompt: answers that the summaries hold, invented numbers, loops."""
    memories = [runner.read(document.text) for document in documents]
    for prompt, text in chosen.items():
        answers = [
            memory.ask(_message(text), max_tokens=SUMMARY_TOKENS, stop_loops=True)
            for memory in memories
        ]
        pairs = list(zip(documents, answers, strict=True))
        yield {
            "prompt": prompt,
            "facts": sum(
                question.is_right(answer.text)
                for document, answer in pairs
                for question in document.questions
            ),
            "invented numbers": sum(
                len(document.invented_numbers(answer.text)) for document, answer in pairs
            ),
            "loops": sum(answer.looped for answer in answers),
            **_lengths(answers),
        }


def _message(text: str, **values: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text.format(**values)}]


def _lengths(answers: list[Generation]) -> Row:
    tokens = sum(answer.usage.output_tokens for answer in answers) / len(answers)
    cut = sum(answer.finish_reason == "length" for answer in answers)
    return {"answers": len(answers), "cut": cut, "mean tokens": round(tokens, 1)}
