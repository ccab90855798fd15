"""Films, the tiny LLaVA's training and the table, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from namm_lab.film.evaluate import _slope, held_out, measure
from namm_lab.film.model import IMAGE
from namm_lab.film.pictures import film
from namm_lab.film.train import Recipe, batch_of, train
from namm_llm import Runner


def test_frames_of_a_scene_differ_by_noise_alone() -> None:
    one, again = (film(20, 4, np.random.default_rng(3)) for _ in range(2))
    assert (one.frames == again.frames).all()
    assert sum(one.lengths) == len(one.frames) == 20
    assert len(set(one.colours)) == 4
    still = film(20, 4, np.random.default_rng(3), noise=0)
    scenes = np.split(still.frames, np.cumsum(still.lengths)[:-1])
    assert all((scene == scene[:1]).all() for scene in scenes)


def test_a_slope_tells_who_is_blind_to_repetition() -> None:
    lengths = [1, 2, 4, 8, 16] * 3
    assert _slope([(each, 0.5 * each, True) for each in lengths]) == pytest.approx(1)
    assert _slope([(each, 2.0, True) for each in lengths]) == pytest.approx(0)


def test_a_runner_reads_what_was_trained_on(tmp_path: Path) -> None:
    train(tmp_path, Recipe(steps=2, batch=2))
    runner = Runner.load(tmp_path, prefix_caches=0)
    [one] = held_out(1, frames=5, scenes=2)
    ids, _ = batch_of([one], np.random.default_rng(0))
    memory = runner.read(one.frames)
    colour = runner.decode(ids[0, 21:22].tolist())
    asked = memory.request(colour)
    assert [IMAGE if id > 2**60 else id for id in [*asked.memory_ids, *asked.ids]] == (
        ids[0, :22].tolist()
    )
    row = measure(runner.with_cache("novelty", budget=0.5, interval=8), [one], "novelty", 0.5)
    assert 0 <= row.accuracy <= 1
    assert row.to_dict()["films"] == 1
