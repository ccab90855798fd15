"""The recipe of the bundled model, end to end and very small."""

from __future__ import annotations

from pathlib import Path

import pytest

from namm_lab.tiny.train import main
from namm_llm import Runner


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_few_steps_make_a_model_that_runs_and_can_be_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "model"
    main(["--smoke", "--out", str(out), "--minutes", "0.1", "--device", "cpu"])
    assert "## Scores" in (out / "README.md").read_text()
    answer = Runner.load(out).chat([{"role": "user", "content": "Hello"}], max_tokens=3)
    assert answer.usage.output_tokens >= 1
    main(
        [
            "--smoke",
            "--out",
            str(out),
            "--minutes",
            "0.15",
            "--device",
            "cpu",
            "--work",
            str(tmp_path / "model-work"),
        ]
    )
    log = (out / "log.jsonl").read_text()
    assert log.count('"event": "run"') == 2
