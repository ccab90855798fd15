"""`ProgressBar`: progress on a terminal's stderr. Nothing moves where stderr is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from namm_llm.cli.options import lively

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar:
    """A bar of done parts, and a note behind it.

    It appears with the first report that leaves something to do, or with the first note.
    """

    def __init__(self, title: str = "Reading", unit: str = "tokens") -> None:
        self._title = title
        self._unit = unit
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def update(self, done: int, total: int) -> None:
        """`done` of `total` parts are done."""
        if (bar := self._shown(done < total)) is not None:
            bar.update(bar.task_ids[0], completed=done, total=total)

    def note(self, text: str) -> None:
        """Show a text behind the bar."""
        if (bar := self._shown(True)) is not None:
            bar.update(bar.task_ids[0], description=text)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _shown(self, wanted: bool) -> Progress | None:
        if self._bar is None and wanted and lively():
            self._bar = _new_bar(self._title, self._unit)
            self._bar.start()
        return self._bar


def _new_bar(title: str, unit: str) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task("", total=None)
    return bar
