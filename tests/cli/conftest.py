"""A command line whose runner is a fake: `cli(["reply"], "ask", ...)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from namm_llm.cli.main import main
from namm_llm.cli.options import Settings
from namm_llm.config import make_cache_config
from namm_llm.errors import NammError
from tests.cli.fake import FakeRunner


class FakeCommandLine:
    """Calls a command with replies queued; `runner` is the fake of the last call, `settings` what
    it was loaded with.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.runner = FakeRunner([])
        self.settings: Settings | None = None
        self.eviction = make_cache_config()

    def __call__(
        self,
        replies: list[str | NammError],
        *arguments: str,
        stdin: str = "",
        between: Callable[[], None] = lambda: None,
    ) -> Result:
        self.runner = FakeRunner(list(replies), between, config=self.eviction)

        def load(settings: Settings) -> FakeRunner:
            self.settings = settings
            return self.runner

        self._monkeypatch.setattr(Settings, "load", load)
        self._monkeypatch.setattr("namm_llm.cli.ask.piped_text", lambda: stdin.strip())
        return CliRunner().invoke(main, arguments, input=stdin, prog_name="namm-llm")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> FakeCommandLine:
    return FakeCommandLine(monkeypatch)


@pytest.fixture
def handbook(tmp_path: Path) -> str:
    path = tmp_path / "handbook.txt"
    path.write_text("The lamp is green.\n", encoding="utf-8")
    return str(path)
