"""Short documents for prompts: two sets that share nothing, questions that the texts answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from namm_lab.reports.prompts import QUESTIONS, SUMMARIES, question_rows, summary_rows
from namm_lab.tasks.short_documents import SETS, Set, short_documents
from namm_llm import Runner


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_twelve_kinds_with_four_questions_that_the_text_answers(name: Set) -> None:
    documents = short_documents(name)
    assert len({document.kind for document in documents}) == len(documents) == 12
    for document in documents:
        assert len(document.questions) == 4
        for question in document.questions:
            assert question.is_right(document.text), question
            assert not question.is_right(question.text), question


def test_the_sets_share_no_document_and_no_question() -> None:
    one, other = (short_documents(name) for name in SETS)
    assert not {document.text for document in one} & {document.text for document in other}
    asked = [
        {question.text for document in documents for question in document.questions}
        for documents in (one, other)
    ]
    assert not asked[0] & asked[1]


def test_numbers_that_a_document_does_not_have_are_invented() -> None:
    document = short_documents("choosing")[0]
    assert document.invented_numbers("1. It costs 51,200 euros.\n2. After 46 days.") == ["46"]


def test_rows_of_prompts(tiny_folder: Path) -> None:
    runner, documents = Runner.load(tiny_folder), short_documents("choosing")[:2]
    names = list(QUESTIONS)[:2]
    rows = list(question_rows(runner, documents, {name: QUESTIONS[name] for name in names}))
    assert [row["prompt"] for row in rows] == names
    assert all(row["answers"] == row["cut"] == 8 for row in rows)  # a random model does not end
    assert all(0 <= row["right and whole"] <= row["right"] <= 8 for row in rows)
    name = next(iter(SUMMARIES))
    (row,) = summary_rows(runner, documents[:1], {name: SUMMARIES[name]})
    assert (row["prompt"], row["answers"]) == (name, 1)
