"""Progress of long work, on a terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from namm_llm.cli.options import lively

if TYPE_CHECKING:
    from rich.progress import Progress


class JobBar:
    """A bar of done parts, what was noted last behind it. Nothing moves where stderr is no
    terminal.
    """

    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._bar: Progress | None = None

    def __enter__(self) -> JobBar:
        if lively():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            columns = (
                TextColumn(self._title),
                BarColumn(20),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TimeElapsedColumn(),
            )
            self._bar = Progress(
                *columns,
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def update(self, done: int, total: int) -> None:
        """`done` of `total` parts are done."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def note(self, text: str) -> None:
        """Show a text behind the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=text)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
