"""The command leaves Triton out where nothing could run it."""

from __future__ import annotations

import sys

import pytest
import torch

from namm_llm.__main__ import WithoutTriton


@pytest.mark.parametrize("available", [False, True])
def test_triton_is_left_out_where_there_is_no_accelerator(
    available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = WithoutTriton()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: available)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "triton")

    finder.find_spec("namm_llm.cli")
    assert finder in sys.meta_path
    finder.find_spec("transformers")

    assert finder not in sys.meta_path
    assert ("triton" in sys.modules) is not available
    assert sys.modules.get("triton") is None


def test_an_imported_triton_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = WithoutTriton()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "triton", sys)
    finder.find_spec("transformers")
    assert sys.modules["triton"] is sys
