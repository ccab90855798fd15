"""The list of `python -m namm_lab.reports speed`, made outside the checkout."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from namm_lab.bench import rows
from namm_lab.reports import speed


def test_reports_start_in_any_folder_and_rows_name_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = importlib.reload(speed).STEPS[0].plan
    ours = next(one for one in plan.contenders() if one.policy == "namm")
    row = rows.key_of(plan, next(iter(plan.cells())), "prefill", ours, "float32")
    assert row["namm"] == "namm_llm/models/namm-tiny/namm.safetensors"
