"""Documents in a model's own chat format."""

from __future__ import annotations

import pytest

from namm_lab.tasks import Question, Sample
from namm_lab.train.sample_source import SampleSource, eval_document_of, train_document_of
from namm_llm.errors import ContextError, UsageError
from namm_llm.models.loading import load_model
from namm_llm.models.prompt import PromptFormat

SAMPLE = Sample(
    "fact",
    "The lamp is green.",
    (Question("Lamp?", "green.", ("green",)), Question("Door?", "red.", ("red",))),
)
TEXT = Sample("prose", "The lamp is", (Question("", " green.", (), metric="likelihood"),))


@pytest.fixture(scope="module")
def loaded(tiny_folder):
    return load_model(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(loaded):
    return PromptFormat(loaded.tokenizer, loaded.backend, loaded.model_id)


def whole(loaded, ids) -> str:
    return loaded.backend.decode(list(ids), skip_special_tokens=False)


def test_each_question_is_asked_of_the_document_alone(loaded, prompts):
    document = eval_document_of(SAMPLE, prompts)
    asked = whole(loaded, document.document + document.questions[1])
    assert asked == prompts.template.render(
        [{"role": "user", "content": "The lamp is green.\n\nDoor?"}]
    )
    assert [whole(loaded, answer) for answer in document.answers] == ["green.", "red."]


def test_a_text_that_goes_on(loaded, prompts):
    asked = eval_document_of(TEXT, prompts)
    ids = asked.document + asked.questions[0] + asked.answers[0]
    assert whole(loaded, ids) == "<|begin_of_text|>The lamp is green."
    taught = train_document_of(TEXT, prompts)
    assert tuple(taught.document + taught.queries) == ids


def test_a_train_document_is_one_conversation(loaded, prompts):
    document = train_document_of(SAMPLE, prompts)
    turns = [("user", "The lamp is green.\n\nLamp?"), ("assistant", "green."), ("user", "Door?")]
    expected = (
        prompts.template.render([{"role": role, "content": content} for role, content in turns])
        + "red."
    )
    assert whole(loaded, document.document + document.queries) == expected


def test_a_repeated_document_comes_again_after_the_request(loaded, prompts):
    source = SampleSource(loaded, (300,))
    (given,) = source.train_documents(["prose"], 0, 1, "repeat")
    text = given.document[prompts.head_tokens :]
    assert given.queries[-len(text) :] == text
    assert "Repeat" in prompts.decode(given.queries[: -len(text)])
    with pytest.raises(UsageError, match="questions or repeat, not 'answers'"):
        source.train_documents(["prose"], 0, 1, "answers")


def test_the_same_arguments_draw_the_same_and_splits_share_nothing(loaded):
    source = SampleSource(loaded, (100, 200), questions=2)
    documents = source.eval_documents("train", ["fact", "values"], 3, 3)
    assert documents == source.eval_documents("train", ["fact", "values"], 3, 3)
    assert [document.task for document in documents] == ["fact"] * 3 + ["values"] * 3
    assert documents != source.eval_documents("train", ["fact", "values"], 4, 3)
    assert sorted(len(document.document) > 160 for document in documents[:3]) == [
        False,
        True,
        True,
    ]  # lengths take turns, from another one each seed
    held_out = source.eval_documents("validation", ["fact", "values"], 3, 3)
    assert not {document.questions for document in documents} & {
        document.questions for document in held_out
    }
    assert [len(source.train_documents(["fact", "prose"], 0, count)) for count in (1, 5)] == [1, 5]


def test_documents_must_fit_the_model(loaded):
    with pytest.raises(ContextError, match=r"documents of 4000 tokens and 1024 .* 4096 positions"):
        SampleSource(loaded, (100, 4000))
    with pytest.raises(UsageError, match="at least 64 tokens, not 10"):
        SampleSource(loaded, (10,))
