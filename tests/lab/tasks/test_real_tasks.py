"""What is special about RULER's other tasks and about those made of real texts."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from namm_lab.tasks import Sample, draw_samples
from namm_lab.tasks.docstrings import documented
from namm_lab.tasks.repository import APART, SHOWN, uses
from namm_lab.tasks.summary import principal_sentences
from namm_llm.errors import UsageError


def count(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def draw(task: str, length: int = 1500, **changes) -> Sample:
    return draw_samples(task, length, seed=5, count_tokens=count, **changes)[0]


def test_a_chain_of_variables_leads_from_the_value_to_the_last_one() -> None:
    sample = draw("vt")
    (question,) = sample.questions
    value = re.search(r"\d{5}", question.prompt)[0]
    assigned = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", sample.document))
    found, source = [], value
    while following := [name for name, of in assigned.items() if of == source]:
        found += following
        source = following[0]
    assert tuple(found) == question.expected
    assert len(found) == 5
    places = [sample.document.index(f"VAR {name} =") for name in found]
    assert places == sorted(places)
    assert question.score(", ".join(found[:2])) == pytest.approx(2 / 5)
    assert sample.document.count("are assigned the value") == 2  # the example's question, answered


@pytest.mark.parametrize(("length", "many", "few"), [(1500, 6, 1), (5000, 30, 3)])
def test_ten_words_are_more_common_than_all_others(length: int, many: int, few: int) -> None:
    sample = draw("cwe", length)
    listed = sample.document.rpartition("\n")[2]
    counts = Counter(re.findall(r"\d+\. (\w+)", listed))
    assert {word for word, times in counts.items() if times == many} == set(
        sample.questions[0].expected
    )
    assert set(counts.values()) == {many, few}
    assert listed.startswith("1. ")
    assert f"{sum(counts.values())}. " in listed


def test_dots_and_then_three_words_are_the_most_frequent() -> None:
    sample = draw("fwe", 2500)
    counts = Counter(sample.document.split("coded words. ")[1].split()).most_common(5)
    assert counts[0][0] == "..."
    assert [word for word, _ in counts[1:4]] == list(sample.questions[0].expected)
    assert counts[3][1] > counts[4][1]


def test_questions_over_documents_need_one_or_two_of_them() -> None:
    for task, needed in (("qa_1", 1), ("qa_2", 2)):
        sample = draw(task, 2500)
        assert len(sample.questions) == 8
        documents = re.split(r"Document \d+:\n", sample.document)[1:]
        assert len(documents) > 8 * needed
        for question in sample.questions:
            summary = re.search(r'this: "(.*)"\?', question.prompt)[1]
            (described,) = [text for text in documents if f": {summary}" in text]
            assert (question.answer in described) == (needed == 1)
            if needed == 2:
                method = re.match(r"The method (\w+):", described)[1]
                assert f"The class {question.answer} has the method {method}." in sample.document


def test_what_documents_itself() -> None:
    module = (
        'def compute(x):\n    """Add one to a number, slowly.\n\n    More."""\n'
        'class Machine:\n    def compress(self):\n        """Make a text as small as it gets."""\n'
        'def compute_all():\n    """Let compute_all do what its name says."""\n'
        'def short():\n    """Too few."""\n'
    )
    assert [(one.owner, one.name, one.text) for one in documented((module, "def no(:"))] == [
        ("", "compute", "Add one to a number, slowly."),
        ("Machine", "compress", "Make a text as small as it gets."),
    ]
    assert not documented((module, module))  # nothing is asked that has two answers


def test_a_sentence_goes_on_with_a_word_that_stands_there_once() -> None:
    sample = draw("sentences")
    assert len(sample.questions) == 8
    for question in sample.questions:
        start = re.search('"(.*)"', question.prompt)[1]
        assert sample.document.count(f"{start} {question.answer}") == 1
        assert len(re.findall(rf"\b{question.answer}\b", sample.document, re.IGNORECASE)) == 1
        assert question.score(f"It goes on with {question.answer}.") == 1.0


def test_a_summary_is_compared_with_the_principal_sentences() -> None:
    about = [f"The ship {what} the harbour of the old town at night." for what in ("left", "saw")]
    others = [
        f"Word{n} other{n} thing{n} more{n} again{n} never{n} gone{n} so{n}." for n in range(5)
    ]
    assert principal_sentences([about[0], *others, about[1]], 2) == " ".join(about)
    sample = draw("summary")
    (question,) = sample.questions
    assert question.score(question.answer) == 1.0
    assert question.score("Nothing of the kind.") < 0.2
    assert set(question.answer.split()) <= set(sample.document.split())


def test_a_conversation_is_asked_for_what_was_said_last() -> None:
    sample, changed = draw("conversation"), 0
    for question in sample.questions:
        kind = re.search(r"the user's (.*)\?", question.prompt)[1]
        said = re.findall(rf"my {kind} is (?:now )?(\d+)\.", sample.document)
        assert question.expected == (said[-1],)
        changed += len(said) == 2
    assert changed == 2
    assert all(line.startswith(("User: ", "Assistant: ")) for line in sample.document.splitlines())


def test_the_next_line_of_a_repository_calls_what_it_defines() -> None:
    sample = draw("repository")
    (question,) = sample.questions
    assert any(
        re.search(rf"\b(?:def|class) {name}\b", sample.document)
        for name in re.findall(r"(\w+)\(", question.answer)
    )
    shown = re.search(r"code:\n\n(.*)\n\nWrite", question.prompt, re.DOTALL)[1]
    assert sample.document.rstrip().endswith(shown)
    assert len(shown.splitlines()) <= SHOWN
    assert question.score(question.answer) == 1.0
    assert question.score("pass") < 0.5


def test_uses_are_far_from_their_definition() -> None:
    filler = "".join(f"x{n} = {n}\n" for n in range(APART))
    text = f"def far_away(x):\n    return x\n{filler}y = far_away(17) + 1\nz = far_away(18) + 2\n"
    assert [use.answer for use in uses((text,))] == ["y = far_away(17) + 1", "z = far_away(18) + 2"]
    assert not uses((text.replace(filler, ""),))


def test_classes_are_told_by_the_shots_alone() -> None:
    sample = draw("many_shot")
    shots = re.findall(r"Request: (.*)\nClass: (\w+)\n", sample.document)
    assert len({label for _, label in shots}) == 4
    for question in sample.questions:
        assert question.answer in question.choices
        assert question.prompt.splitlines()[0] not in sample.document  # a new request
        assert question.score(f"Class: {question.answer}") == 1.0
        assert question.score(" or ".join(question.choices)) == 0.25


def test_a_folder_of_prose_has_sentences_summaries_and_conversations(tmp_path: Path) -> None:
    words = "harbour lantern whisper gravel mountain orchard thunder village copper willow".split()
    rng = random.Random(0)
    for number in range(40):
        lines = [
            f"Then the {rng.choice(words)} of our {rng.choice(words)} became "
            f"{rng.choice(words)}{rng.randrange(10**6)} and "
            f"{''.join(rng.choices('abcdefgh', k=9))} again."
            for _ in range(60)
        ]
        (tmp_path / f"{number}.txt").write_text("\n".join(lines))
    for task in ("sentences", "summary", "conversation", "many_shot"):
        assert draw(task, 600, texts=tmp_path).questions
    for task in ("qa_1", "repository"):
        with pytest.raises(UsageError, match=r"no code for the split test: add \.py files"):
            draw(task, 600, texts=tmp_path)
