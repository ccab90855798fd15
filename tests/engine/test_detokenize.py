from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from namm_llm.engine.text import Detokenizer
from tests.tiny import BOS, EOT, TEXT, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer().backend_tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt or [])
    return [detokenizer.feed(token) for token in ids]


@pytest.mark.parametrize(
    "text", [TEXT, "🙂🙂", "漢字かな", "naïve café", "\ta\n\n b  c", "👩‍👩‍👧‍👦 é"]
)
def test_pieces_are_whole_characters_and_join_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    found = pieces(tokenizer, tokenizer.encode(text, add_special_tokens=False).ids)
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_half_a_character_at_the_end_is_dropped(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a\U0001f680", add_special_tokens=False).ids
    assert len(ids) > 2
    assert "".join(pieces(tokenizer, ids[:-1])) == "a"


def test_half_a_character_at_the_end_of_the_prompt_does_not_leak(tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("secret \U0001f680", add_special_tokens=False).ids[:-1]
    assert "secret" not in "".join(
        pieces(tokenizer, tokenizer.encode("fox", add_special_tokens=False).ids, prompt)
    )


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    ids = [
        tokenizer.token_to_id(BOS),
        *tokenizer.encode("fox", add_special_tokens=False).ids,
        tokenizer.token_to_id(EOT),
    ]
    assert "".join(pieces(tokenizer, ids)) == "fox"


def test_the_first_word_keeps_its_space_after_a_prompt() -> None:
    """Tokenizers like Llama 2's drop the space before the first word of a text."""
    words = {"<unk>": 0, "▁the": 1, "▁fox": 2, "▁": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert pieces(tokenizer, [2], prompt=[1]) == [" fox"]
    assert pieces(tokenizer, [2]) == ["fox"]
