"""What an inspection says, without a browser: entries, tokens, kinds, spans, rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from namm_llm import DocumentError, Runner
from namm_llm.inspect import (
    character_kinds,
    forgotten_spans,
    inspect_memories,
    is_code,
    kept_entries,
    rows_of,
    token_kind,
)
from namm_llm.inspect.terminal import shade, table_lines
from tests.inspect.samples import HEADS, LAYERS, inspection_of, long_pieces

TEXT = "The quick brown fox jumps over the lazy dog. " * 80
ODD = "🙂 漢字 <|eot_id|> Ein schöner Tag. </script> " * 20


@pytest.fixture(scope="module")
def runner(tiny_folder: Path) -> Runner:
    return Runner.load(tiny_folder, policy="streaming_llm", budget=0.5)


@pytest.mark.parametrize(
    "text",
    [TEXT, ODD, "  \n The lamp", "🙂🙂"],
    ids=["plain", "odd", "white space first", "no word"],
)
def test_the_tokens_are_those_that_are_read_and_their_texts_the_document(
    runner: Runner, text: str
) -> None:
    memory = runner.read(text)
    starts = runner.document_starts(text)
    assert len(starts) == memory.cache.seen_tokens()[0]
    found = inspect_memories(runner, "note.txt", text, [memory])
    assert "".join(found.pieces) == text
    assert len(found.pieces) == len(found.kinds) == found.sides[0].held.shape[2]
    assert found.pieces[0] != ""
    own = runner.encode(text)
    if "<|eot_id|>" not in text:  # which is read as plain text, unlike here
        assert len(found.pieces) == len(own)
        for piece, token in zip(found.pieces, own, strict=True):
            written = runner.decode([token])
            assert "\ufffd" in written or written == piece


def test_entries_are_those_of_the_cache(runner: Runner) -> None:
    cache = runner.read(TEXT).cache
    held = kept_entries(cache)
    assert held.sum(2).tolist() == [layer[0] for layer in cache.kept_tokens()]
    assert held[:, :, 0].all()  # the first tokens and the newest stay, the ones after the first go
    assert held[:, :, -1].all()
    assert not held[:, :, 20].any()


def test_each_head_has_its_own_entries(tiny_folder: Path) -> None:
    cache = Runner.load(tiny_folder, policy="knorm", budget=0.3).read(TEXT).cache
    held = kept_entries(cache)
    sequence = cache.managed[1].sequences[0]
    start = sequence.retained.lengths[0]
    assert held[1, 1].nonzero().flatten().tolist() == sequence.retained.positions[start:].tolist()
    assert not held[0, 0].equal(held[0, 1])


def test_the_window_is_kept(runner: Runner) -> None:
    cache = runner.with_cache(policy="full").read("The quick brown fox.").cache
    assert not cache.managed[0].sequences[0].retained.lengths[0]
    assert kept_entries(cache).all()


def test_a_short_text_is_brought_to_its_budget(runner: Runner) -> None:
    evicting = runner.with_cache(policy="replay", budget=0.25, interval=512)
    cache = evicting.read("The quick brown fox. " * 20).cache
    assert cache.seen_tokens()[0] < cache.config.interval
    assert 0.2 < kept_entries(cache).float().mean() <= 0.25


def test_a_memory_of_another_text_is_refused(runner: Runner) -> None:
    with pytest.raises(DocumentError, match=r"the memory has \d+ tokens, but note.txt has \d+"):
        inspect_memories(runner, "note.txt", TEXT + "More.", [runner.read(TEXT)])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("a.py", True),
        ("a.c", True),
        ("a.md", False),
        ("a.txt", False),
        ("standard input", False),
        ("a.xyz", False),
    ],
)
def test_a_file_s_suffix_says_whether_it_is_code(name: str, code: bool) -> None:
    assert is_code(name) is code


def kinds_of(text: str, name: str, *pieces: str) -> list[set[str]]:
    kinds = character_kinds(text, name)
    assert len(kinds) == len(text)
    return [set(kinds[text.index(piece) : text.index(piece) + len(piece)]) for piece in pieces]


def test_kinds_of_code() -> None:
    text = 'def area(x):\n    """Of a\n    disk."""\n    return 3.14 * x  # about\ny = "z"\n'
    pieces = (
        "def",
        "area",
        "(",
        '"""Of a\n    disk."""',
        "return",
        "3.14",
        "# about",
        "    return"[:4],
        '"z"',
    )
    expected = [
        "keyword",
        "name",
        "punctuation",
        "docstring",
        "keyword",
        "number",
        "comment",
        "white space",
        "string",
    ]
    assert kinds_of(text, "a.py", *pieces) == [{kind} for kind in expected]
    assert kinds_of("int x; // why\n", "a.c", "int", "x", ";", "// why") == [
        {"keyword"},
        {"name"},
        {"punctuation"},
        {"comment"},
    ]


def test_kinds_of_prose() -> None:
    text = "Since 1991, the lamp is green.\n"
    expected = ["other word", "number", "punctuation", "function word", "other word", "white space"]
    assert kinds_of(text, "a.txt", "Since", "1991", ",", "the", "lamp", "\n") == [
        {kind} for kind in expected
    ]


def test_a_token_is_what_it_shows_first() -> None:
    kinds = ["white space", "keyword", "keyword", "name"]
    assert [token_kind(" ifx", kinds, *span) for span in ((0, 2), (0, 1), (3, 4), (2, 2))] == [
        "keyword",
        "white space",
        "name",
        "white space",
    ]


def test_forgotten_spans_are_the_longest_runs_first() -> None:
    held = torch.tensor([0, 1, 0, 0, 0, 1, 1, 0, 1, 0], dtype=torch.bool)
    assert [(span.start, span.stop) for span in forgotten_spans(held)] == [
        (2, 5),
        (0, 1),
        (7, 8),
        (9, 10),
    ]
    assert len(forgotten_spans(held, most=2)) == 2
    assert forgotten_spans(torch.ones(3, dtype=torch.bool)) == []


def test_rows_add_up() -> None:
    found = inspection_of(long_pieces(300), shares=(0.5, 0.2))
    rows = rows_of(found)
    assert {row["policy"] for row in rows} == {"policy 0", "policy 1"}
    parts = [row for row in rows if row["policy"] == "policy 0"]
    (whole,) = [row for row in parts if row["part"] == "all"]
    held = found.sides[0].held
    assert whole["kept"] == pytest.approx(float(held.float().mean()))
    for part, count in (("layer", LAYERS), ("head", LAYERS * HEADS)):
        kept = [row["kept"] for row in parts if row["part"] == part]
        assert len(kept) == count
        assert sum(kept) / count == pytest.approx(whole["kept"])
    kinds = [row for row in parts if row["part"] == "kind"]
    assert sum(row["tokens"] for row in kinds) == 300
    assert sum(row["tokens"] * row["kept"] for row in kinds) == pytest.approx(300 * whole["kept"])
    first = next(row for row in parts if row["part"] == "forgotten")
    assert (first["start"], first["tokens"], first["text"]) == (4, 5, " jumps over the lazy dog")
    ages = sorted(299 - at for at in held.nonzero()[:, 2].tolist())
    assert whole["median_age"] in (ages[len(ages) // 2], ages[(len(ages) - 1) // 2])


def test_the_table_has_a_line_for_each_row() -> None:
    found = inspection_of(long_pieces(50))
    head, *lines = table_lines(found)
    assert len(lines) == len(rows_of(found))
    assert {line.count("\t") for line in (head, *lines)} == {head.count("\t")}


def test_only_what_nothing_holds_has_the_shade_of_the_forgotten() -> None:
    assert [shade(share) for share in (0.0, 0.01, 0.2, 0.5, 1.0)] == [0, 1, 1, 3, 5]
