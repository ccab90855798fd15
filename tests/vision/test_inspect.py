"""What `inspect` shows of a film."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from namm_llm import Runner
from namm_llm.cli.main import main
from namm_llm.documents import read_film
from namm_llm.inspect import inspect_film, kept_entries
from tests.vision.folders import pixels


@pytest.fixture
def film(tmp_path: Path) -> Path:
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(9):
        Image.fromarray(pixels(number // 3)).save(folder / f"{number:02}.png")
    return folder


def test_a_frame_has_the_entries_of_its_tokens(
    folder_of: Callable[[str], Path], film: Path
) -> None:
    runner = Runner.load(folder_of("llava"), interval=16).with_cache(
        "novelty", budget=0.3, interval=16
    )
    found = read_film(film)
    assert found is not None
    memory = runner.read(list(found.pictures))
    seen = inspect_film(runner, "film", found.text, found.pictures, [memory])
    held = kept_entries(memory.cache).float()
    head = runner.session.format.head_tokens
    assert [(span.start, span.stop) for span in seen.spans] == [
        (head + 9 * number, head + 9 * number + 9) for number in range(9)
    ]
    for number, (row, span) in enumerate(zip(seen.rows(), seen.spans, strict=True), 1):
        own = held[:, :, span.start : span.stop]
        assert (row["frame"], row["tokens"]) == (number, 9)
        assert row["kept"] == pytest.approx(float(own.mean()))
    assert all(
        (a.pixels == b.pixels).all() for a, b in zip(seen.frames, found.pictures, strict=True)
    )
    # of three equal frames the newest stays
    kept = np.array([row["kept"] for row in seen.rows()]).reshape(3, 3)
    assert (kept[:, 2] >= kept[:, :2].max(1)).all()


def test_the_command_writes_a_strip(
    folder_of: Callable[[str], Path], film: Path, tmp_path: Path
) -> None:
    page, picture = tmp_path / "film.html", tmp_path / "film.png"
    asked = ["inspect", str(film), "--model", str(folder_of("llava")), "--versus", "random"]
    asked += ["--policy", "novelty", "--budget", "0.3", "--interval", "16"]
    done = CliRunner().invoke(main, [*asked, "-o", str(page), "--png", str(picture), "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["frame"] for row in rows] == [*range(1, 10)] * 2
    html = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<img alt=.frame \d+. src=.data:image/png;base64,", html)) == 18
    assert not re.search(r"(src|href)=.(?!data:)", html)  # it asks nobody for anything
    shown = [float(each) for each in re.findall(r'style="opacity:([\d.]+)"><div', html)]
    assert shown == [pytest.approx(0.12 + 0.88 * row["kept"], abs=0.006) for row in rows]
    with Image.open(picture) as strip:
        assert strip.width > strip.height
    lines = CliRunner().invoke(main, asked).stdout.splitlines()
    assert len(lines) == 2 * (1 + 9)
