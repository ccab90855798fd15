"""Metrics on cases made by hand."""

from __future__ import annotations

import pytest

from namm_lab.tasks.metrics import METRICS

CLASSES = ("Food", "Plant", "Food and drink")


@pytest.mark.parametrize(
    ("metric", "reply", "expected", "score"),
    [
        ("exact", "The access code of the amber vault is 48213.", ["48213"], 1),
        ("exact", "48,213", ["48213"], 1),
        ("exact", "  The code is **48213**\nand more", ["48213"], 1),
        ("exact", "Access code: 48213", ["48213"], 1),
        ("exact", "The access code of the amber vault is 482.", ["48213"], 0),
        ("exact", "The access code of the amber vault is 482131.", ["48213"], 0),
        ("exact", "The owner of the mill is the Baker.", ["baker"], 1),
        ("exact", "", ["48213"], 0),
        ("exact", "The code is.", [""], 0),
        ("not_stated", "The price of the lamp is not stated.", ["not stated"], 1),
        ("not_stated", "The text does not mention it.", ["not stated"], 1),
        ("not_stated", "The price of the lamp is 4821.", ["not stated"], 0),
        (
            "set_share",
            "The price of Lamp is 1.\nThe price of the red door is 22.",
            ["red door: 22", "Lamp: 1"],
            1,
        ),
        ("set_share", "The price of Lamp is 1.", ["red door: 22", "Lamp: 1"], 0.5),
        ("set_share", "The price of Lamp is 22.", ["red door: 22", "Lamp: 1"], 0),
        (
            "set_share",
            "Lamp: 1\nred door: 22\nold door: 3\nold gate: 4",
            ["red door: 22", "Lamp: 1"],
            0.5,
        ),
        ("set_share", "The prices are:\n- red door: 22\n- Lamp: 1", ["red door: 22", "Lamp: 1"], 1),
        (
            "set_share",
            "Rule 1 is the lamp.\nRule 2 is Door.\nRule 3 is not stated.",
            ["rule 1: the lamp", "rule 2: Door"],
            1,
        ),
        (
            "set_share",
            "Rule 1 is the lamp.\nRule 3 is Door.\nRule 4 is not stated.",
            ["rule 1: the lamp", "rule 2: Door"],
            1 / 3,
        ),
        ("set_share", "The codes are 123, 456 and 789.", ["789", "123", "456"], 1),
        ("set_share", "The codes are 1234.", ["123"], 0),
        ("set_share", "", ["123"], 0),
        ("word_recall", "Eat a sandwich in the park!", ["eat a sandwich and sit in a park"], 2 / 3),
        ("string_match_all", "It is 12 and ABC", ["abc", "12", "13"], 2 / 3),
        ("string_match_part", "It is 12 and ABC", ["abc", "13"], 1),
        ("string_match_part", "It is 12", ["abc", "13"], 0),
        ("f1", "the cat sat", ["a cat sat down"], 0.8),
        ("f1", "dog", ["cat", "The dog."], 1),
        ("f1_characters", "北京。", ["北京市"], 0.8),
        ("rouge_l", "the cat is on the mat", ["the cat sat on the mat"], 5 / 6),
        ("rouge_l", "mat the on", ["on the mat"], 1 / 3),
        ("rouge_l", "", ["on the mat"], 0),
        ("rouge_l_characters", "北京市", ["北京"], 0.8),
        ("edit", "# a comment\nreturn x", ["return x"], 1),
        ("edit", "\nreturn y", ["return x"], 0.875),
        ("count", "There are 12 or 13.", ["12"], 0.5),
        ("count", "many", ["12"], 0),
        ("numbered", "Paragraph 7", ["Paragraph 7"], 1),
        ("numbered", "Paragraph 17", ["Paragraph 7"], 0),
        ("classify", "It is Plant", ["Plant"], 1),
        ("classify", "Plant or Food", ["Plant"], 0.5),
        ("classify", "Food and drink", ["Food and drink"], 1),
        ("classify", "Nothing", ["Plant"], 0),
    ],
)
def test_a_reply_gets_its_score(metric: str, reply: str, expected: list[str], score: float) -> None:
    assert METRICS[metric](reply, expected, CLASSES) == pytest.approx(score)
