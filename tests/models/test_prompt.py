from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from namm_llm.errors import ModelError, UsageError
from namm_llm.models.prompt import ASK, PromptFormat
from tests.tiny import BOS, EOT, TEMPLATE, tiny_tokenizer

NO_BOS_TEMPLATE = TEMPLATE.replace("{{ bos_token }}", "")
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who signs?"}]


def prompts(**settings: Any) -> PromptFormat:
    tokenizer = tiny_tokenizer(**settings)
    return PromptFormat(tokenizer, tokenizer.backend_tokenizer, "tiny")


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize(
    "template", [TEMPLATE, NO_BOS_TEMPLATE, None], ids=["writes", "omits", "none"]
)
def test_every_path_has_exactly_one_bos(adds_bos: bool, template: str | None) -> None:
    form = prompts(adds_bos=adds_bos, template=template)
    paths = [
        form.prompt("The fox"),
        form.prompt(f"{BOS}The fox"),
        form.document("The fox") + form.question("Who?"),
    ]
    if template is not None:
        paths += [form.prompt(MESSAGES), form.prompt(form.template.render(MESSAGES))]
    for ids in paths:
        assert ids[0] == 0
        assert ids.count(0) == 1


def test_messages_are_what_the_template_makes_of_them() -> None:
    form = prompts()
    tokenizer = tiny_tokenizer()
    whole = tokenizer.apply_chat_template(
        MESSAGES, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert form.prompt(MESSAGES) == whole


def test_a_document_and_a_question_make_one_message() -> None:
    form = prompts()
    whole = form.template.render([{"role": "user", "content": "The fox is red.\n\nWhat is red?"}])
    assert form.document("The fox is red.") + form.question("What is red?") == [
        *form.encode(whole[: whole.index("\n\nWhat")]),
        *form.encode(whole[whole.index("\n\nWhat") :]),
    ]
    assert form.head_tokens == len(form.encode(whole[: whole.index("The fox")]))


def test_a_question_is_put_as_the_model_wants_it() -> None:
    asked = "The fox is red.\n\nAnswer briefly from the text above: Who?"
    for options, content in (
        ({"ask_prompt": ASK}, asked),
        ({"ask_prompt": "Q {question} A"}, "The fox is red.\n\nQ Who? A"),
    ):
        form = prompts(**options)
        whole = form.template.render([{"role": "user", "content": content}])
        ids = form.document("The fox is red.") + form.question("Who?")
        assert form.decode(ids) == form.decode(form.encode(whole))


def test_messages_about_a_document_stay_as_they_are() -> None:
    form = prompts(ask_prompt=ASK)
    message = {"role": "user", "content": "The fox is red.\n\nSummarize it."}
    ids = form.document("The fox is red.") + form.question(
        [{**message, "content": "Summarize it."}]
    )
    assert form.decode(ids) == form.decode(form.encode(form.template.render([message])))


def test_a_model_without_a_prompt_of_its_own_has_the_default() -> None:
    tokenizer = tiny_tokenizer()
    del tokenizer.init_kwargs["ask_prompt"]
    form = PromptFormat(tokenizer, tokenizer.backend_tokenizer, "tiny")
    assert form.question("Who?") == prompts(ask_prompt=ASK).question("Who?")


def test_the_own_prompt_of_a_model_is_saved_with_it(tmp_path: Path) -> None:
    tiny_tokenizer(ask_prompt="Q {question} A").save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).init_kwargs["ask_prompt"] == "Q {question} A"


def test_without_a_template_a_document_is_followed_by_question_and_answer() -> None:
    form = prompts(template=None)
    assert form.document("The fox.") == [0, *form.encode("The fox.")]
    assert form.question("Who?") == form.encode("\nQuestion: Who?\nAnswer:")
    assert form.head_tokens == 1
    assert form.answer_stop == ("\nQuestion:",)  # such a model asks itself the next one
    assert prompts().answer_stop == ()


def test_a_document_cannot_smuggle_in_special_tokens() -> None:
    form = prompts()
    text = f"one{EOT}two{BOS}"
    ids = form.document(text)
    assert ids.count(0) == 1
    assert 2 not in ids
    assert form.decode(ids).endswith(text)
    assert form.question(f"{EOT}?").count(2) == 1  # the template's own


def test_ids_pass_unchanged() -> None:
    assert prompts().prompt([5, 6, 7]) == [5, 6, 7]


@pytest.mark.parametrize(
    ("same", "expected"), [({"eos_token": BOS}, []), ({"eos_token": EOT}, [0])]
)
def test_one_token_for_both_ends_is_not_put_before_text(
    same: dict[str, str], expected: list[int]
) -> None:
    tokenizer = tiny_tokenizer(adds_bos=False)
    tokenizer.add_special_tokens(same)
    form = PromptFormat(tokenizer, tokenizer.backend_tokenizer, "tiny")
    assert form.prompt("x") == [*expected, *form.encode("x")]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "there are no messages to answer."),
        ([{"role": "user"}], "a message needs a role and a content; one has role."),
        (5, "a prompt is a text, a list of messages or a list of token ids, not int."),
        ("\ud800", "the text holds half a character at position 0; decode it as UTF-8 first."),
    ],
)
def test_wrong_prompts_are_explained(prompt: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        prompts().prompt(prompt)
    assert str(error.value) == message


def test_messages_without_a_template_are_explained() -> None:
    with pytest.raises(ModelError) as error:
        prompts(template=None).prompt(MESSAGES)
    assert str(error.value) == (
        "tiny has no chat template, so it cannot take messages; give it plain text, or use a model "
        "whose tokenizer has a chat template "
        "(most with Instruct in their names)."
    )


def test_what_a_template_refuses_is_explained() -> None:
    form = prompts(template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(
        UsageError,
        match="the chat template of tiny does not take these messages: roles must alternate",
    ):
        form.prompt(MESSAGES)


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        prompts().question(" \n")
