"""The page for people in headless Chromium: upload, watch, ask, sources (make test-serve)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inspect import chromium

pytestmark = [
    pytest.mark.serve,
    pytest.mark.enable_socket,
    pytest.mark.skipif(chromium.PATH is None, reason="no Chromium on this machine"),
]
TEXT = "The head of the department signs travel requests. " * 40


def test_a_document_is_read_and_asked(address: str, tmp_path: Path) -> None:
    page = chromium.Page(tmp_path / "profile")
    try:
        page.call("Page.navigate", url=address)
        page.wait("document.querySelector('#about')?.textContent.includes('positions')")
        for name in ("handbook.txt", "minutes.txt"):
            (tmp_path / name).write_text(f"{name}: {TEXT}")
            document = page.call("DOM.getDocument")["root"]["nodeId"]
            file = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
            page.call("DOM.setFileInputFiles", files=[str(tmp_path / name)], nodeId=file)
            page.click("#upload")
            page.wait(f"[...document.querySelectorAll('option')].some((o) => o.value === '{name}')")
        page.value("for (const each of document.querySelectorAll('option')) each.selected = true")
        page.value("document.querySelector('#question').value = 'Who signs travel requests?'")
        page.click("#ask")
        page.wait("document.querySelector('#numbers').textContent.includes('tokens kept')")
        page.wait("!document.querySelector('#ask').disabled")
        assert page.value("document.querySelector('#answer').textContent")
        sources = page.value("document.querySelector('#sources').innerText")
        assert "handbook.txt: " in sources
        assert "minutes.txt: " in sources
        assert "tokens kept" in sources
        page.picture(tmp_path / "page.png")
        assert page.problems == []
        assert {each.removeprefix(address).split("/")[0] for each in page.requests} == {""}, (
            json.dumps(page.requests)
        )
    finally:
        page.close()
