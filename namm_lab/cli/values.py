"""What the lab's commands share: lists in an option, and tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from namm_llm import UsageError


def names(text: str) -> tuple[str, ...]:
    """`"a, b"` to `("a", "b")`."""
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """`"2000,8000"` to `(2000, 8000)`. UsageError for what is no whole number."""
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise UsageError(
            f"--{option} takes whole numbers, such as 2000,8000, not {text!r}."
        ) from None


def print_table(
    title: str, columns: Sequence[str], lines: Sequence[Sequence[str]], *, width: int
) -> None:
    """width: of the table where stdout is no terminal, whose width some terminal would decide."""
    from rich.console import Console
    from rich.table import Table

    first, *others = columns
    table = Table(first, title=title, title_justify="left")
    for name in others:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = width
    console.print(table)
