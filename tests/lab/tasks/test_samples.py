"""Samples of all tasks: the same by seed, of the asked length, with their answers in them, and
apart by split.
"""

from __future__ import annotations

import random
import re
from itertools import combinations
from pathlib import Path

import pytest

from namm_lab.tasks import TASKS, Sample, draw_samples, make_task
from namm_lab.tasks.material import load_material
from namm_lab.tasks.metrics import METRICS
from namm_lab.tasks.passages import Passages
from namm_lab.tasks.placement import different_records
from namm_lab.tasks.texts import load_texts, text_split
from namm_lab.tasks.words import SPLITS, split_of
from namm_llm.errors import DocumentError, UsageError

LENGTH = 900


def count(text: str) -> int:
    """Words and signs: near enough to a tokenizer's tokens, and fast."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def draw(task: str, **changes) -> list[Sample]:
    return draw_samples(
        task, **{"length": LENGTH, "count": 2, "count_tokens": count, "seed": 3, **changes}
    )


@pytest.mark.parametrize("task", TASKS)
def test_the_same_arguments_give_the_same_samples_and_a_longer_draw_goes_on(task: str) -> None:
    samples = draw(task)
    assert samples == draw(task)
    assert samples == draw(task, count=3)[:2]
    assert samples[0] != samples[1]
    assert samples[0] != draw(task, seed=4)[0]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [600, 2000])
def test_documents_have_the_asked_length(task: str, length: int) -> None:
    for sample in draw(task, length=length):
        whole = sample.document + (
            sample.questions[0].answer if sample.questions[0].is_continuation else ""
        )
        assert count(whole) == pytest.approx(length, rel=0.05)


# what they score is likeness, and a repository's next line is not in the document
BY_LIKENESS = ("prose", "code", "summary", "repository")


@pytest.mark.parametrize("task", [name for name in TASKS if name not in BY_LIKENESS])
def test_the_given_answer_is_right_and_stands_in_the_document(task: str) -> None:
    for sample in draw(task):
        assert sample.questions
        for question in sample.questions:
            assert question.score(question.answer) == 1.0
            assert question.score("Nothing of the kind, 1.") == 0.0
            for expected in question.expected if question.metric != "not_stated" else ():
                assert all(part in sample.document for part in expected.split(": "))


def test_what_is_missing_is_not_in_the_document() -> None:
    for sample in draw("missing"):
        absent = [question for question in sample.questions if question.metric == "not_stated"]
        assert len(absent) == len(sample.questions) // 2
        for question in absent:
            statement = re.sub(r"^The (.*) is not stated\.$", r"\1 is ", question.answer)
            assert statement not in sample.document


def test_there_is_a_record_for_every_128_tokens_and_look_alikes_among_them() -> None:
    rng = random.Random(0)
    records = different_records(rng, load_material("test", count), 60, ["door code", "price"])
    assert len({(record.kind, record.name.bare) for record in records}) == 60
    words = [record.name.words for record in records if len(record.name.words) == 2]
    alike = sum(any(a != b and (a[0] == b[0] or a[1] == b[1]) for b in words) for a in words)
    assert alike > len(words) / 5
    for task in ("fact", "missing", "list"):
        (sample,) = draw(task, length=2560, count=1)
        stated = re.findall(r"(?:The|the) [\w ]+ (?:of|for) [\w ]+ is (?:\w+)\.", sample.document)
        assert len(stated) >= 20


@pytest.mark.parametrize(
    "task",
    ["fact", "values", "niah_multivalue", "niah_single_3", "passages", "vt", "fwe", "conversation"],
)
def test_splits_share_no_value(task: str) -> None:
    for split in SPLITS:
        for sample in draw(task, split=split):
            values = [value for question in sample.questions for value in question.expected]
            assert {split_of(value) for value in values} == {split}


@pytest.mark.parametrize("split", SPLITS)
def test_splits_share_no_name(split: str) -> None:
    material = load_material(split, count)
    rng = random.Random(1)
    assert {
        split_of(word)
        for record in different_records(rng, material, 50, ["price"])
        for word in record.name.words
    } == {split}
    assert len(material.names.words) > 100


def test_splits_share_no_text() -> None:
    texts = [load_texts(split) for split in SPLITS]
    for one, other in combinations(texts, 2):
        assert not set(one.prose) & set(other.prose)
        assert not {text for text in one.code if len(text) > 200} & set(other.code)
    assert all(split.prose and split.code for split in texts)
    assert len({split.fingerprint for split in texts}) == 3


def test_a_continuation_goes_on_where_the_document_ends() -> None:
    for task, kind in (("prose", "prose"), ("code", "code")):
        (sample,) = draw(task, count=1)
        assert count(sample.questions[0].answer) == pytest.approx(LENGTH // 4, rel=0.1)
        assert sample.questions[0].answer.splitlines()[1] in "\n".join(
            getattr(load_texts("test"), kind)
        )


def test_a_quotation_is_in_its_passage_alone() -> None:
    (sample,) = draw("passages", count=1)
    for question in sample.questions:
        quote = re.search('"(.*)"', question.prompt)[1]
        (line,) = [line for line in sample.document.splitlines() if quote in line]
        assert line.startswith(f"Passage {question.expected[0]}: ")


def test_niah_is_as_published() -> None:
    (single,) = draw("niah_single_1", count=1)
    (question,) = single.questions
    assert single.document.startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. I "
        "will quiz"
    )
    key = re.fullmatch(
        r"What is the special magic number for (.*) mentioned in the provided text\?",
        question.prompt,
    )[1]
    assert (
        single.document.count(
            f"One of the special magic numbers for {key} is: {question.expected[0]}."
        )
        == 1
    )
    assert re.fullmatch(r"\d{7}", question.expected[0])
    assert single.document.count("special magic") == 2
    (apart,) = draw("needles", count=1)
    assert [len(question.expected) for question in apart.questions] == [1] * 8
    assert len({question.prompt for question in apart.questions}) == 8
    (many,) = draw("niah_multiquery", count=1)
    assert len(many.questions[0].expected) == 4
    assert ", and " in many.questions[0].prompt
    (among,) = draw("niah_multikey_3", count=1)
    assert among.document.count("One of the special magic uuids for ") > 10


# -- texts of the user's ---------------------------------------------------------------------------


def folder_with_texts(path: Path) -> Path:
    path.mkdir()
    for number in range(40):
        lines = [
            f"Sentence {number} {i} of my own book says nothing new. It ends here."
            for i in range(60)
        ]
        (path / f"{number}.txt").write_text("\n".join(lines))
    return path


def test_documents_come_from_a_folder(tmp_path: Path) -> None:
    folder = folder_with_texts(tmp_path / "books")
    (sample,) = draw("fact", texts=folder, count=1)
    assert "of my own book says" in sample.document
    assert "Python" not in sample.document
    for split in SPLITS:
        texts = load_texts(split, folder).prose
        assert {text_split(text) for text in texts} == {split}
    with pytest.raises(UsageError, match=r"no code for the split test: add \.py files"):
        draw("code", texts=folder)
    with pytest.raises(UsageError, match="fewer than the 100000 asked for"):
        draw("prose", texts=folder, length=100_000)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"holds no \.txt, \.md or \.py file"):
        draw("fact", texts=tmp_path)
    with pytest.raises(DocumentError, match="is not a folder"):
        draw("fact", texts=tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("One line.\n")
    other = "train" if text_split("One line.\n") == "test" else "test"
    with pytest.raises(UsageError, match=f"too little text for a split {other} of its own"):
        draw("fact", texts=tmp_path, split=other)


def test_wrong_names_and_numbers() -> None:
    with pytest.raises(
        UsageError, match=r"there is no task 'facts' \(did you mean fact\?\); choose from fact, "
    ):
        make_task("facts")
    with pytest.raises(
        UsageError, match="the split must be one of train, validation, test, not 'dev'"
    ):
        draw("fact", split="dev")
    with pytest.raises(UsageError, match="not 0 and 2"):
        draw("fact", length=0)
    with pytest.raises(UsageError, match="at least 1 question, not 0"):
        make_task("fact", questions=0)


def test_the_number_of_questions_can_be_chosen() -> None:
    (sample,) = draw("fact", questions=3, count=1)
    assert len(sample.questions) == 3
    assert isinstance(make_task("passages"), Passages)
    assert all(
        question.metric in METRICS
        for name in TASKS
        if name not in ("prose", "code")
        for question in draw(name)[0].questions
    )
