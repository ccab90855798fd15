"""What is forgotten: kinds of characters and tokens, and the shares that a cache still holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from namm_lab.reports import report, results
from namm_lab.reports.__main__ import main
from namm_lab.reports.forgotten import (
    LAYERS,
    by_layer,
    compare,
    document_shares,
    kept_shares,
    side_by_side,
)
from namm_lab.reports.forgotten import _figures as figures_of
from namm_lab.reports.forgotten import _token_kind as token_kind
from namm_lab.reports.labelled import (
    EARLIER,
    LATER,
    TEXTS,
    Labelled,
    code_kinds,
    dialogue_kinds,
    passage_documents,
    prose_kinds,
)
from namm_lab.rows import Row
from namm_llm import Runner
from namm_llm.engine.forward import feed, tokens_seen

LENGTH = 900


def kinds_of(text: str, kinds: list[str], *pieces: str) -> list[set[str]]:
    return [set(kinds[text.index(piece) : text.index(piece) + len(piece)]) for piece in pieces]


def test_kinds_of_prose() -> None:
    text = "Since 1991, amber is 7.\nNote: the height of the amber vault is 48213. It stays.\n"
    kinds = prose_kinds(text, ["The height of the amber vault is 48213."])
    pieces = ("1991", ",", "amber is", "height", "of", "amber vault", "48213", "It", "stays", "\n")
    assert kinds_of(text, kinds, *pieces) == [
        {"other digits"},
        {"punctuation"},
        {"other word", "white space", "function word"},  # the same word, but no fact
        {"other word"},
        {"function word"},
        {"name of a fact"},
        {"digits of a fact"},
        {"function word"},
        {"other word"},
        {"white space"},
    ]


def test_a_capital_within_a_sentence_is_a_name() -> None:
    text = 'Then Ishmael saw "Queequeg". Ahab stood. And Starbuck.\n'
    kinds = prose_kinds(text, ())
    pieces = ("Then", "Ishmael", "Queequeg", "Ahab", "stood", "Starbuck")
    assert kinds_of(text, kinds, *pieces) == [
        {kind} for kind in ("other word", "name", "name", "other word", "other word", "name")
    ]


def test_kinds_of_a_dialogue() -> None:
    again = "The same sentence is said again."
    text = (
        f"User: By the way, my door code is 17.\nAssistant: {again}\n"
        f"User: It has changed: my door code is now 18.\nAssistant: {again}\n"
    )
    kinds = dialogue_kinds(text)
    assert kinds_of(text, kinds, "User:", "17", "18", again) == [
        {"speaker"}, {"digits of a fact"}, {"digits of a fact"}, {EARLIER},
    ]  # fmt: skip
    assert kinds[text.rindex(again)] == LATER
    assert {kinds[place] for place in (text.index("door"), text.rindex("door"))} == {
        "name of a fact"
    }


def test_retrieved_passages_overlap_and_say_so() -> None:
    (document,) = passage_documents(lambda text: len(text.split()), 400, 1)
    marked = {kind: document.kinds.count(kind) for kind in (EARLIER, LATER)}
    assert marked[EARLIER] > len(document.text) / 20
    assert marked[LATER] == pytest.approx(marked[EARLIER], rel=0.3)
    first = document.kinds.index(LATER)
    sentence = document.text[first : first + 20]
    assert document.text.count(sentence) >= 2
    assert document.text.index(sentence) < first


@pytest.mark.parametrize("name", TEXTS)
def test_texts_have_the_asked_length_and_a_kind_for_each_character(name: str) -> None:
    documents = TEXTS[name](lambda text: len(text.split()), 300, 2, None)
    assert documents == TEXTS[name](lambda text: len(text.split()), 300, 2, None)
    assert documents[0] != documents[1]
    for document in documents:
        assert len(document.kinds) == len(document.text)
        assert 20 < len(document.text.split()) <= 310


def test_layers_of_a_deep_model_stand_in_a_table_of_their_own() -> None:
    rows = [
        {"model": model, "text": "prose", "part": f"layer {number}", "tokens": 9, "policy": "h2o",
         "budget": "0.5", "kept": 0.5, "anywhere": 1.0}
        for model, layers in (("deep", LAYERS + 1), ("tiny", 2))
        for number in range(1, layers + 1)
    ]  # fmt: skip
    assert [line["model"] for line in side_by_side(rows)] == ["tiny", "tiny"]
    assert by_layer(rows, "tiny") == [
        {"layer": number, "prose, h2o 0.5": "0.50"} for number in ("1", "2")
    ]
    assert len(by_layer(rows, "deep")) == LAYERS + 1


def test_kinds_of_code() -> None:
    text = 'def area(x):\n    """Of a\n    disk."""\n    return 3.14 * x  # about\n'
    pieces = (
        "def",
        "area",
        "(",
        '"""Of a\n    disk."""',
        "return",
        "3.14",
        "# about",
        "    return 3"[:4],
    )
    assert kinds_of(text, code_kinds(text), *pieces) == [
        {"keyword"}, {"name in code"}, {"punctuation"}, {"string"}, {"keyword"},
        {"digits in code"}, {"comment"}, {"white space"},
    ]  # fmt: skip


def test_code_that_is_cut_within_a_string_is_not_counted_from_there() -> None:
    text = 'x = 1\ny = """never ended'
    kinds = code_kinds(text)
    assert kinds_of(text, kinds, "1", "never") == [{"digits in code"}, {""}]


@pytest.mark.parametrize(
    ("span", "kind"), [((0, 4), "keyword"), ((0, 1), "white space"), ((4, 6), "digits")]
)
def test_a_token_is_what_it_shows_first(span: tuple[int, int], kind: str) -> None:
    document = Labelled(" def 1", ["white space", *["keyword"] * 3, "white space", "digits"])
    assert token_kind(document, *span) == kind


def test_shares_are_those_of_the_cache(tiny_folder: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 80
    memory = Runner.load(tiny_folder, policy="streaming_llm", budget=0.5).read(text)
    shares = kept_shares(memory)
    kept = memory.cache.kept_tokens()
    assert shares.shape == (len(kept), memory.cache.seen_tokens()[0])
    assert [
        round(float(layer.sum()) * len(heads[0])) for layer, heads in zip(shares, kept, strict=True)
    ] == [sum(heads[0]) for heads in kept]
    assert (
        shares[:, 0].eq(1).all()
    )  # the first tokens and the newest stay, the ones after the first go
    assert shares[:, -1].eq(1).all()
    assert shares[:, 20].eq(0).all()


def test_what_stands_before_a_document_is_not_counted(tiny_folder: Path) -> None:
    runner, text = (
        Runner.load(tiny_folder, policy="streaming_llm", budget=0.5),
        "The quick brown fox jumps over the lazy dog. " * 80,
    )
    shares = document_shares(runner, text, len(runner.encode(text)))
    assert shares.shape[1] == len(runner.encode(text))
    assert (
        shares[:, 0].eq(0).all()
    )  # its first token goes, while the chat template's before it stay
    assert shares[:, -1].eq(1).all()


def test_what_was_not_evicted_yet_is_kept(tiny_folder: Path) -> None:
    """A document ends with an eviction step; what comes behind it is in the window."""
    runner = Runner.load(tiny_folder, policy="random", budget=0.5)
    memory, behind = runner.read("The quick brown fox."), runner.encode(" jumps over")
    read = tokens_seen(memory.cache)
    assert kept_shares(memory).lt(1).any()
    list(feed(runner.loaded.model, memory.cache, torch.tensor([behind])))
    shares = kept_shares(memory)
    assert shares[:, :read].lt(1).any()
    assert shares.shape[1] == read + len(behind)
    assert shares[:, read:].eq(1).all()


@pytest.fixture(scope="module")
def found(tiny_folder: Path) -> list[Row]:
    return compare(
        model=str(tiny_folder),
        policies=["random", "replay", "streaming_llm"],
        budgets=["0.25"],
        length=LENGTH,
        documents=1,
    )


def test_the_model_s_own_policy_comes_first_and_once(found: list[Row]) -> None:
    assert list(dict.fromkeys(row["policy"] for row in found)) == [
        "replay",
        "random",
        "streaming_llm",
    ]
    assert len({(row["text"], row["part"], row["policy"]) for row in found}) == len(found)


def test_a_token_may_be_kept_in_one_head_only(found: list[Row]) -> None:
    for row in found:
        if row["policy"] == "streaming_llm":  # keeps the same tokens everywhere
            assert row["anywhere"] == pytest.approx(row["kept"])
    shares = torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.5]])
    assert figures_of(shares) == {"kept": 0.25, "anywhere": 0.5}


@pytest.mark.parametrize("text", ["prose", "code"])
@pytest.mark.parametrize("policy", ["random", "replay"])
def test_kinds_and_layers_add_up_to_all(found: list[Row], text: str, policy: str) -> None:
    parts = {row["part"]: row for row in found if (row["text"], row["policy"]) == (text, policy)}
    everything = parts.pop("all")
    assert everything["kept"] == pytest.approx(0.25, abs=0.02)
    layers = [parts.pop(f"layer {number}")["kept"] for number in (1, 2)]
    assert sum(layers) / 2 == pytest.approx(everything["kept"])
    uncounted = everything["tokens"] - sum(row["tokens"] for row in parts.values())
    assert 0 <= uncounted <= (0 if text == "prose" else everything["tokens"] // 2)
    if not uncounted:
        assert sum(row["kept"] * row["tokens"] for row in parts.values()) == pytest.approx(
            everything["kept"] * everything["tokens"]
        )


def test_the_command_s_rows_make_the_report_s_table(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[Row]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    options = [
        "--model",
        str(tiny_folder),
        "--policy",
        "random",
        "--budget",
        "0.5",
        "--length",
        str(LENGTH),
        "--documents",
        "1",
    ]
    done = CliRunner().invoke(main, ["forgotten", *options], catch_exceptions=False)
    assert done.exit_code == 0
    head, _, *lines = report.table("forgotten").splitlines()
    assert head == "| model | text | part | tokens | replay 0.5 | random 0.5 |"
    assert any("| prose | digits of a fact | " in line for line in lines)
    assert len([line for line in lines if line.startswith("| ")]) == len(side_by_side(found))
