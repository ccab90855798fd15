"""An inspection for a terminal: the document in colour, and bars; for a pipe, a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from namm_llm.inspect.forgotten import forgotten_spans
from namm_llm.inspect.inspection import Inspection, Side
from namm_llm.inspect.rows import median_age, rows_of

# white text on blues of the 256 colours that every terminal has; what is forgotten is grey, without
# a background
SHADES = ("bright_black", *(f"white on color({number})" for number in (17, 18, 20, 26, 32)))
BAR = 30
COLUMNS = (
    "policy",
    "part",
    "layer",
    "head",
    "kind",
    "start",
    "tokens",
    "kept",
    "anywhere",
    "median_age",
)


def print_document(inspection: Inspection) -> None:
    """Print the document once for each memory, each followed by its numbers."""
    console = Console(highlight=False, force_terminal=True, color_system="256")
    for side in inspection.sides:
        console.rule(Text(f"{inspection.name} · {side.policy}"))
        console.print(
            _legend(),
            _shaded(inspection, side),
            Padding(_numbers(inspection, side), (1, 0)),
            sep="\n",
            soft_wrap=False,
        )


def table_lines(inspection: Inspection) -> Iterator[str]:
    """Rows of numbers with their names in the first, separated by tabs; what a row does not have is
    empty.
    """
    yield "\t".join(COLUMNS)
    for row in rows_of(inspection):
        yield "\t".join(_cell(row.get(name)) for name in COLUMNS)


def shade(share: float) -> int:
    """The index in `SHADES` of a share of places that hold a token; 0 for none only."""
    return math.ceil(share * (len(SHADES) - 1))


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _legend() -> Text:
    scale = [
        (" forgotten ", SHADES[0]),
        *((f" {number} ", style) for number, style in enumerate(SHADES[1:], 1)),
    ]
    return Text.assemble(
        *scale, f"  from 1, held by few heads, to {len(SHADES) - 1}, held by all\n"
    )


def _shaded(inspection: Inspection, side: Side) -> Text:
    text = Text(end="\n")
    for piece, share in zip(inspection.pieces, side.shares.tolist(), strict=True):
        text.append(_printable(piece), SHADES[shade(share)])
    return text


def _printable(piece: str) -> str:
    """Control characters as pictures, so that no document can steer the terminal."""
    return "".join(
        chr(0x2400 + ord(c))
        if ord(c) < 0x20 and c not in "\n\t"
        else "\N{REPLACEMENT CHARACTER}"
        if 0x7F <= ord(c) < 0xA0
        else c
        for c in piece
    )


def _numbers(inspection: Inspection, side: Side) -> Group:
    layers = Table(title="kept by layer", title_justify="left", box=None, pad_edge=False)
    for name in ("layer", "kept", "", "each head"):
        layers.add_column(name, justify="right" if name in ("layer", "kept") else "left")
    for number, layer in zip(inspection.layers, side.held, strict=True):
        heads = " ".join(f"{share:.0%}" for share in layer.float().mean(1).tolist())
        share = float(layer.float().mean())
        layers.add_row(str(number), f"{share:.1%}", Text("█" * round(BAR * share), "blue"), heads)
    spans = Table(title="largest forgotten spans", title_justify="left", box=None, pad_edge=False)
    for name in ("tokens", "from", "text"):
        spans.add_column(
            name, justify="left" if name == "text" else "right", no_wrap=True, overflow="ellipsis"
        )
    for span in forgotten_spans(side.anywhere, most=8):
        text = "".join(inspection.pieces[span.start : span.stop])[:200]
        spans.add_row(str(len(span)), str(span.start), Text(repr(text)))
    gone = float((~side.anywhere).float().mean())
    total = f"{float(side.shares.mean()):.1%} of all places kept, {gone:.1%} of the tokens forgotten everywhere"
    age = f"half of what is kept is younger than {median_age(side.held)} tokens"
    return Group(Text(f"{total}; {age}\n"), layers, Text(), _kinds(inspection, side), Text(), spans)


def _kinds(inspection: Inspection, side: Side) -> Table:
    table = Table(title="kept by kind of token", title_justify="left", box=None, pad_edge=False)
    for name in ("kind", "kept", "", "tokens"):
        table.add_column(name, justify="right" if name in ("kept", "tokens") else "left")
    shares = side.shares.tolist()
    found = {
        kind: [s for s, own in zip(shares, inspection.kinds, strict=True) if own == kind]
        for kind in set(inspection.kinds) - {""}
    }
    for kind, own in sorted(found.items(), key=lambda item: -sum(item[1]) / len(item[1])):
        share = sum(own) / len(own)
        table.add_row(kind, f"{share:.1%}", Text("█" * round(BAR * share), "blue"), str(len(own)))
    return table
