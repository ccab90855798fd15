"""An inspection for a terminal: the document in colour, and bars; for a pipe, a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from namm_llm.inspect.entries import forgotten_spans
from namm_llm.inspect.inspection import Inspection, Side
from namm_llm.inspect.rows import kept_by_kind, median_age, rows_of

# white text on blues of the 256 colours that every terminal has; what is forgotten is grey, without
# a background
SHADES = ("bright_black", *(f"white on color({number})" for number in (17, 18, 20, 26, 32)))
BAR = 30
COLUMNS = "policy part layer head kind start tokens kept anywhere median_age".split()


def print_document(inspection: Inspection) -> None:
    """Print the document once for each memory, each followed by its numbers."""
    console = Console(highlight=False, force_terminal=True, color_system="256")
    for side in inspection.sides:
        console.rule(Text(f"{inspection.name} · {side.policy}"))
        numbers = Padding(_numbers(inspection, side), (1, 0))
        console.print(_legend(), _shaded(inspection, side), numbers, sep="\n", soft_wrap=False)


def table_lines(inspection: Inspection) -> Iterator[str]:
    """Rows of numbers with their names in the first, separated by tabs; what a row does not have is
    empty.
    """
    yield "\t".join(COLUMNS)
    for row in rows_of(inspection):
        yield "\t".join(_cell(row.get(name)) for name in COLUMNS)


def shade(share: float) -> int:
    """The index in `SHADES` of a share of a token's entries that are held; 0 for none only."""
    return math.ceil(share * (len(SHADES) - 1))


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _legend() -> Text:
    numbers = [(f" {number} ", style) for number, style in enumerate(SHADES[1:], 1)]
    scale = f"  from 1, held by few heads, to {len(SHADES) - 1}, held by all\n"
    return Text.assemble((" forgotten ", SHADES[0]), *numbers, scale)


def _shaded(inspection: Inspection, side: Side) -> Text:
    text = Text(end="\n")
    for piece, share in zip(inspection.pieces, side.shares.tolist(), strict=True):
        text.append("".join(map(_printable, piece)), SHADES[shade(share)])
    return text


def _printable(character: str) -> str:
    """A control character as a picture, so that no document can steer the terminal."""
    if ord(character) < 0x20 and character not in "\n\t":
        return chr(0x2400 + ord(character))
    return "\N{REPLACEMENT CHARACTER}" if 0x7F <= ord(character) < 0xA0 else character


def _numbers(inspection: Inspection, side: Side) -> Group:
    gone = float((~side.anywhere).float().mean())
    summary = (
        f"{float(side.shares.mean()):.1%} of all entries kept, {gone:.1%} of the tokens "
        f"forgotten everywhere; half of what is kept is younger than {median_age(side.held)} "
        "tokens\n"
    )
    layers, kinds = _layers(inspection, side), _kinds(inspection, side)
    return Group(Text(summary), layers, Text(), kinds, Text(), _spans(inspection, side))


def _layers(inspection: Inspection, side: Side) -> Table:
    table = _table("kept by layer", "layer", "kept", "", "each head", right=("layer", "kept"))
    for number, layer in zip(inspection.layers, side.held, strict=True):
        heads = " ".join(f"{share:.0%}" for share in layer.float().mean(1).tolist())
        share = float(layer.float().mean())
        table.add_row(str(number), f"{share:.1%}", _bar(share), heads)
    return table


def _kinds(inspection: Inspection, side: Side) -> Table:
    table = _table("kept by kind of token", "kind", "kept", "", "tokens", right=("kept", "tokens"))
    kept = {kind: held.float().mean() for kind, held in kept_by_kind(inspection, side).items()}
    for kind, share in sorted(kept.items(), key=lambda item: -float(item[1])):
        tokens = inspection.kinds.count(kind)
        table.add_row(kind, f"{float(share):.1%}", _bar(float(share)), str(tokens))
    return table


def _spans(inspection: Inspection, side: Side) -> Table:
    table = _table("largest forgotten spans", "tokens", "from", right=("tokens", "from"))
    table.add_column("text", no_wrap=True, overflow="ellipsis")
    for span in forgotten_spans(side.anywhere, most=8):
        text = "".join(inspection.pieces[span.start : span.stop])[:200]
        table.add_row(str(len(span)), str(span.start), Text(repr(text)))
    return table


def _table(title: str, *columns: str, right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left")
    return table


def _bar(share: float) -> Text:
    return Text("█" * round(BAR * share), "blue")
