"""A film as a strip of its frames, shaded by what is kept: a page, a picture, lines of text."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from html import escape
from io import BytesIO

from namm_llm.errors import UsageError
from namm_llm.inspect.figure import load_matplotlib, save_figure
from namm_llm.inspect.film import FilmInspection
from namm_llm.inspect.inspection import Side
from namm_llm.io import write_text
from namm_llm.models.vision.picture import Picture

_FAINT = 0.12  # how visible a frame is of which nothing is kept
_WIDTH = 96  # pixels of a frame on the page
_STYLE = """
:root { color-scheme: light dark; --ink: #2563eb; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 24px; }
h1 { font-size: 18px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 24px 0 8px; }
p { margin: 0 0 8px; opacity: .75; }
.strip { display: flex; flex-wrap: wrap; gap: 10px; }
figure { margin: 0; width: 96px; }
img { display: block; width: 96px; image-rendering: pixelated; border-radius: 3px; }
.heads { display: flex; gap: 1px; margin-top: 3px; }
.heads i { flex: 1; height: 8px; background: var(--ink); }
figcaption { font-size: 11px; font-variant-numeric: tabular-nums; opacity: .8; }
"""


def write_film_page(film: FilmInspection, path: str | os.PathLike[str]) -> None:
    """Write the page, all or nothing. Raises UsageError if the disk refuses."""
    write_text(path, film_page(film), UsageError)


def film_page(film: FilmInspection) -> str:
    """One HTML page that needs nothing but a browser."""
    name, pictures = escape(film.name), [_data_url(frame) for frame in film.frames]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">",
        f"<title>{name} · what the cache kept</title><style>{_STYLE}</style></head><body>",
        f"<h1>{name}</h1><p>{len(film.frames)} frames, read by {escape(film.model)}. A frame is as "
        "visible as the share of its entries that is held; below it, each layer's.</p>",
    ]
    for side in film.sides:
        parts += [f"<h2>{escape(side.policy)}</h2><p>{_figures(side)}</p>", '<div class="strip">']
        parts += _figures_of(film, side, pictures)
        parts.append("</div>")
    return "".join([*parts, "</body></html>\n"])


def _figures_of(film: FilmInspection, side: Side, pictures: list[str]) -> Iterator[str]:
    shares = film.shares(side)
    for number, (picture, own) in enumerate(zip(pictures, shares.T.tolist(), strict=True), 1):
        kept = sum(own) / len(own)
        heads = "".join(f'<i style="opacity:{_visible(share):.2f}"></i>' for share in own)
        yield (
            f'<figure><img alt="frame {number}" src="{picture}" '
            f'style="opacity:{_visible(kept):.2f}"><div class="heads">{heads}</div>'
            f"<figcaption>{number} · {kept:.0%}</figcaption></figure>"
        )


def draw_film(film: FilmInspection, path: str | os.PathLike[str]) -> None:
    """Write the strip as a picture; the suffix of `path` (.png, .svg, .pdf) is its format. Raises
    NammError without matplotlib, UsageError if the path cannot be written.
    """
    pyplot = load_matplotlib()
    columns = min(16, len(film.frames))
    rows = -(-len(film.frames) // columns)
    size = (columns * 0.75 + 0.2, len(film.sides) * (rows * 0.95 + 0.5))
    figure = pyplot.figure(figsize=size, layout="constrained")
    for part, side in zip(
        figure.subfigures(len(film.sides), squeeze=False)[:, 0], film.sides, strict=True
    ):
        part.suptitle(f"{film.name}: {side.policy}", fontsize="small", parse_math=False)
        axes = part.subplots(rows, columns, squeeze=False).flatten()
        for axis in axes:
            axis.axis("off")
        shares = film.shares(side).mean(0).tolist()
        for axis, frame, share in zip(axes, film.frames, shares, strict=False):
            axis.imshow(frame.pixels, alpha=_visible(share))
            axis.set_title(f"{share:.0%}", fontsize=6, pad=2)
    save_figure(figure, path)


def film_lines(film: FilmInspection) -> Iterator[str]:
    """A line for each memory and frame, with a bar."""
    for side in film.sides:
        yield f"{film.name} · {side.policy} · {_figures(side)}"
        for number, share in enumerate(film.shares(side).mean(0).tolist(), 1):
            yield f"{number:5}  {share:6.1%}  {'█' * round(30 * share)}"


def _figures(side: Side) -> str:
    return f"{float(side.held.float().mean()):.1%} of all entries kept"


def _visible(share: float) -> float:
    return _FAINT + (1 - _FAINT) * share


def _data_url(picture: Picture) -> str:
    from PIL import Image

    image = Image.fromarray(picture.pixels)
    if image.width > 2 * _WIDTH:
        image.thumbnail((2 * _WIDTH, 8 * _WIDTH))
    file = BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
