"""LongBench and RULER from files of the published form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from namm_lab.tasks import draw_samples, make_task
from namm_lab.tasks.longbench import PROMPTS
from namm_lab.tasks.metrics import METRICS
from namm_llm.errors import DocumentError, UsageError

LONGBENCH = {
    "input": "Who signs?", "context": "The head signs. " * 50, "answers": ["The head", "head"],
    "length": 150, "dataset": "hotpotqa", "language": "en", "all_classes": None, "_id": "a",
}  # fmt: skip
RULER = {
    "index": 0, "outputs": ["1234567", "7654321"], "length": 300,
    "input": "Some special magic numbers are hidden.\nThe grass is green.\n"
    "What are all the special magic numbers for lamp?",
}  # fmt: skip


def count(text: str) -> int:
    return len(text.split())


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def draw(task: str, **changes):
    return draw_samples(task, **{"length": 10_000, "count": 5, "count_tokens": count, **changes})


def test_a_row_of_longbench(tmp_path: Path) -> None:
    path = write(tmp_path / "hotpotqa.jsonl", LONGBENCH)
    (sample,) = draw(f"longbench:{path}")
    (question,) = sample.questions
    assert sample.document.startswith(
        "Answer the question based on the given passages. Only give me the answer"
    )
    assert sample.document.endswith("The head signs. ")
    assert question.prompt.endswith("any other words.\n\nQuestion: Who signs?\nAnswer:")
    assert (question.metric, question.max_tokens) == ("f1", 32)
    assert question.score("Head.") == 1.0


def test_classes_and_first_lines(tmp_path: Path) -> None:
    row = {**LONGBENCH, "dataset": "trec_e", "answers": ["Plant"], "all_classes": ["Plant", "Food"]}
    (sample,) = draw(f"longbench:{write(tmp_path / 'trec.jsonl', row)}")
    assert sample.questions[0].score("\nPlant\nType: Food") == 1.0


def test_all_21_datasets_have_a_prompt_and_a_metric() -> None:
    prompts = json.loads(PROMPTS.read_text("utf-8"))
    assert len(prompts) == 21
    for known in prompts.values():
        assert known["metric"] in METRICS
        assert known["prompt"].count("{context}") == 1
        assert known["max_tokens"] in (32, 64, 128, 512)


def test_a_long_document_loses_its_middle(tmp_path: Path) -> None:
    path = write(
        tmp_path / "hotpotqa.jsonl", LONGBENCH | {"context": f"Begin {'middle ' * 500} end"}
    )
    (sample,) = draw(f"longbench:{path}", length=100)
    assert 90 <= count(sample.document) <= 100
    assert sample.document.startswith("Answer the question")
    assert sample.document.endswith(" end")


def test_a_row_of_ruler(tmp_path: Path) -> None:
    (sample,) = draw(f"ruler:{write(tmp_path / 'niah_multivalue' / 'validation.jsonl', RULER)}")
    assert sample.document.endswith("The grass is green.")
    assert sample.questions[0].prompt == "What are all the special magic numbers for lamp?"
    assert sample.questions[0].score("They are 1234567.") == 0.5
    (sample,) = draw(f"ruler:{write(tmp_path / 'qa_1.jsonl', RULER)}")
    assert sample.questions[0].score("They are 1234567.") == 1.0


def test_rows_are_drawn_once_each_and_by_seed(tmp_path: Path) -> None:
    rows = [RULER | {"input": f"Line {number}\nWhat?"} for number in range(9)]
    name = f"ruler:{write(tmp_path / 'vt.jsonl', *rows)}"
    drawn = [sample.document for sample in draw(name)]
    assert len(set(drawn)) == 5
    assert drawn == [sample.document for sample in draw(name)]
    assert drawn != [sample.document for sample in draw(name, seed=1)]
    assert len(draw(name, count=100)) == 9


def test_a_benchmark_is_for_tests_only(tmp_path: Path) -> None:
    path = write(tmp_path / "vt.jsonl", RULER)
    with pytest.raises(UsageError, match="is a benchmark: it can be measured"):
        draw(f"ruler:{path}", split="train")


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="there is no file"):
        make_task(f"ruler:{tmp_path / 'nowhere.jsonl'}")
    (tmp_path / "text.jsonl").write_text("Hello.\n")
    with pytest.raises(DocumentError, match="line 1 is not JSON"):
        make_task(f"ruler:{tmp_path / 'text.jsonl'}")
    with pytest.raises(DocumentError, match="line 1 is no JSON object"):
        make_task(f"ruler:{write(tmp_path / 'list.jsonl', [1])}")
    with pytest.raises(DocumentError, match="lacks the field 'outputs'; it has input"):
        draw(f"ruler:{write(tmp_path / 'vt.jsonl', {'input': 'a'})}")
    with pytest.raises(DocumentError, match="no LongBench dataset 'unheard'"):
        draw(f"longbench:{write(tmp_path / 'lb.jsonl', LONGBENCH | {'dataset': 'unheard'})}")
