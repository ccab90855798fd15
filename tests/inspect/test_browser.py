"""The page in headless Chromium: shading, switch, hover, lists, hostile text, and 32 000 tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from namm_llm.inspect import Inspection, write_page
from tests.inspect import chromium
from tests.inspect.samples import HEADS, LAYERS, inspection_of, long_pieces

pytestmark = pytest.mark.skipif(
    chromium.PATH is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
LONG = 32_000
HOSTILE = [
    "</script>",
    "<script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(2)>",
    "'\"&amp;",
    "%DATA%",
    "\\u003c",
]
HOSTILE += [
    "\u2028",
    "🙂",
    "",
    "漢字",
    "\u202eabc\u202c",
    "\0",
    "\r\n",
    "\x1b[31m",
    "e\u0301",
    "\ufeff",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    page = chromium.Page(tmp_path_factory.mktemp("chromium") / "profile")
    yield page
    page.close()


@pytest.fixture
def small(page: chromium.Page, tmp_path: Path) -> Inspection:
    """A page with two sides is open."""
    found = inspection_of(long_pieces(400), shares=(0.5, 0.2))
    write_page(found, tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    return found


@pytest.fixture(autouse=True)
def no_problems(page: chromium.Page) -> Iterator[None]:
    """No console error, no exception, and nothing asked for but the page's own file."""
    page.problems.clear()
    page.requests.clear()
    yield
    assert page.problems == []
    assert {url.partition(":")[0] for url in page.requests} <= {"file"}
    assert len(page.requests) <= 1


def shades(page: chromium.Page, side: int) -> list[int]:
    """The shade of each token, as it is in the document."""
    found = page.value(
        f"[...document.querySelectorAll('p.{'ab'[side]} i')]"
        ".map((cell) => +cell.classList[0].slice(1))"
    )
    assert isinstance(found, list)
    return found


def expected(held: object) -> list[int]:
    """Shades for booleans `[entries, tokens]`."""
    import math

    counts = held.sum(0).tolist()  # type: ignore[attr-defined]
    return [math.ceil(8 * count / len(held)) for count in counts]  # type: ignore[arg-type]


def test_the_document_is_shown_and_shaded_by_how_many_hold_a_token(
    page: chromium.Page, small: Inspection
) -> None:
    for number, side in enumerate(small.sides):
        assert page.value(
            f"[...document.querySelectorAll('p.{'ab'[number]}')].map((p) => p.textContent).join('')"
        ) == "".join(small.pieces)
        assert shades(page, number) == expected(side.held.flatten(0, 1))
    colours = (
        "[2, 4].map((t) => { const s = getComputedStyle(cells[0][t]); "
        "return [s.backgroundColor, s.color]; })"
    )
    (held, text), (gone, faded) = page.value(colours)
    assert held != gone == "rgba(0, 0, 0, 0)"
    assert text != faded


def test_a_layer_a_head_and_all_of_them(page: chromium.Page, small: Inspection) -> None:
    held = small.sides[0].held
    everywhere = shades(page, 0)
    page.click("#switch [data-layer='1'][data-head='null']")
    assert shades(page, 0) == expected(held[1])
    assert page.value("document.querySelectorAll('#switch [aria-pressed=true]').length") == 1
    page.click("#switch [data-layer='2'][data-head='1']")
    assert shades(page, 0) == expected(held[2, 1:])
    assert shades(page, 1) == expected(small.sides[1].held[2, 1:])
    assert page.value("document.getElementById('shown').textContent").startswith(
        f"Shown: layer {LAYERS}, head 2; "
    )
    page.click("#all")
    assert shades(page, 0) == everywhere
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert shades(page, 0) == expected(held[0])


def test_hovering_tells_what_holds_a_token(page: chromium.Page, small: Inspection) -> None:
    for token in (2, 4, 11):
        x, y = page.value(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
            f"(cells[0][{token}].getClientRects()[0])"
        )
        page.move(x, y)
        page.wait(
            "!document.getElementById('tip').hidden && "
            f"document.getElementById('tip').textContent.includes('token {token} ')"
        )
        told = page.value("document.getElementById('tip').textContent")
        assert small.pieces[token].strip() in told
        for number, side in enumerate(small.sides):
            heads, layers = (
                int(side.held[:, :, token].sum()),
                int(side.held[:, :, token].any(1).sum()),
            )
            line = f"kept by {heads} of {LAYERS * HEADS} heads in {layers} of {LAYERS} layers"
            assert f"policy {number}: {line}" in told
            cells = page.value(
                f"[...document.querySelectorAll('#tip .{'ab'[number]} td')]"
                ".map((cell) => cell.className === 'on')"
            )
            assert cells == side.held[:, :, token].flatten().tolist()
    page.move(5, 5)
    page.wait("document.getElementById('tip').hidden")


def test_a_click_on_a_forgotten_span_goes_there(page: chromium.Page, tmp_path: Path) -> None:
    found = inspection_of(long_pieces(6000), shares=(0.9,))
    found.sides[0].held[:, :, 5000:5100] = False
    write_page(found, tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    inside = (
        "(() => { const { top, bottom } = cells[0][5000].getBoundingClientRect(); "
        "return top > 0 && bottom < innerHeight; })()"
    )
    assert not page.value(inside)
    assert page.value("document.querySelector('.span b').textContent") == "100"
    page.click(".span")
    page.wait(inside)
    assert page.value("document.querySelectorAll('p i.found').length") == 100


def test_nothing_in_a_document_becomes_code(page: chromium.Page, tmp_path: Path) -> None:
    name = "%SCRIPT%</title><script>alert(3)</script>.txt"
    write_page(inspection_of(HOSTILE, name=name), tmp_path / "page.html")
    page.open(tmp_path / "page.html")
    assert page.value("pieces") == HOSTILE
    assert (
        page.value("[...document.querySelectorAll('p.a i')].map((cell) => cell.textContent)")
        == HOSTILE
    )
    assert page.value("[document.scripts.length, document.images.length]") == [2, 0]
    assert page.value("document.title").startswith(name)


def test_bitmaps_and_ages_and_kinds_are_those_of_the_inspection(
    page: chromium.Page, small: Inspection
) -> None:
    told = page.value(
        "sides.map((_, s) => [...Array(L * heads).keys()]"
        ".map((p) => pieces.map((_, t) => holds(s, p, t))))"
    )
    assert told == [side.held.flatten(0, 1).int().tolist() for side in small.sides]
    words = [number for number, kind in enumerate(small.kinds) if kind == "other word"]
    share = float(small.sides[0].shares[words].mean())
    assert f"{len(words)} tokens, {100 * share:.1f} % and " in page.value(
        "[...document.querySelectorAll('.kind')].map((row) => row.title).join()"
    )


def test_both_colour_schemes_can_be_read(page: chromium.Page, small: Inspection) -> None:
    """Text against its ground by the rule of the WCAG, 4.5 to 1, for forgotten and for fully kept
    tokens.
    """
    for scheme in ("light", "dark"):
        page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        ground = rgb(
            page.value("getComputedStyle(document.querySelector('article')).backgroundColor")
        )
        for token in (2, 4):
            over, text = page.value(
                "(({ backgroundColor, color }) => [backgroundColor, color])"
                f"(getComputedStyle(cells[0][{token}]))"
            )
            *colour, alpha = (*rgb(over), 1.0)[:4]
            seen = [
                alpha * c + (1 - alpha) * below for c, below in zip(colour, ground, strict=False)
            ]
            assert contrast(seen, rgb(text)) >= 4.5, (scheme, token, over, text)
    page.call("Emulation.setEmulatedMedia", features=[])


def rgb(colour: str) -> list[float]:
    return [float(part) for part in colour[colour.index("(") + 1 : -1].replace("/", ",").split(",")]


def contrast(first: list[float], second: list[float]) -> float:
    def luminance(colour: list[float]) -> float:
        parts = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
            for c in colour[:3]
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def long(page: chromium.Page, tmp_path: Path) -> Path:
    write_page(
        inspection_of(long_pieces(LONG), shares=(0.25, 0.0625), layers=5), tmp_path / "long.html"
    )
    page.open(tmp_path / "long.html")
    return tmp_path / "long.html"


def test_a_long_document_costs_little_for_each_token(page: chromium.Page, long: Path) -> None:
    """What keeps it quick, counted, so that a busy machine cannot fail it: see the next test for
    seconds.
    """
    assert page.value("document.querySelectorAll('p i').length") == 2 * LONG
    assert page.value("document.querySelectorAll('*').length") < 2.1 * LONG
    assert long.stat().st_size < 20 * LONG
    rows = "[...document.querySelectorAll('.rows > div')]"
    assert page.value(f"{rows}.every((row) => getComputedStyle(row).contentVisibility === 'auto')")
    seen = "checkVisibility({ contentVisibilityAuto: true })"
    drawn = f"{rows}.filter((row) => row.firstChild.{seen})"
    assert page.value(f"{drawn}.length") < 0.2 * page.value(f"{rows}.length")
    cell = page.call("Runtime.evaluate", expression="cells[0][100]")["result"]["objectId"]
    assert page.call("DOMDebugger.getEventListeners", objectId=cell)["listeners"] == []


@pytest.mark.slow
def test_a_long_document_is_drawn_within_three_seconds(page: chromium.Page, long: Path) -> None:
    """From the asking for the page until two frames after everything was built; the best of five,
    because others may be at work.
    """
    best = min(_opened(page, long) for _ in range(5))
    switched = page.value(
        "(() => { const start = performance.now(); show(2, 1); document.body.offsetHeight; "
        "return performance.now() - start; })()"
    )
    assert best < 3000, best
    assert switched < 1000, switched


def _opened(page: chromium.Page, path: Path) -> float:
    page.requests.clear()
    page.open(path)
    return float(page.value("document.documentElement.dataset.ready"))
