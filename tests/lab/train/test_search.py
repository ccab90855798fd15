"""The search distribution: it finds the optimum, is the library's own, and goes on exactly from
what a checkpoint holds.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from cmaes import SepCMA

from namm_lab.train.search import Search


def fitness(candidates: np.ndarray) -> list[float]:
    scale = np.linspace(1.0, 5.0, candidates.shape[1])
    return [-float(((scale * (candidate - 0.5)) ** 2).sum()) for candidate in candidates]


def after(search: Search, generations: int) -> Search:
    for _ in range(generations):
        candidates = search.ask(seed=1)
        search = search.tell(candidates, fitness(candidates))
    return search


def test_it_finds_the_optimum():
    found = after(Search.start(np.zeros(20), 0.3, 12), 300)
    assert np.abs(found.mean - 0.5).max() < 1e-3
    assert found.diagonal[0] > found.diagonal[-1]  # the narrow directions are narrower
    assert found.generation == 300


def test_it_is_the_library_up_to_the_precision_of_a_checkpoint():
    search, optimizer = (
        Search.start(np.zeros(30), 0.2, 8),
        SepCMA(np.zeros(30), 0.2, population_size=8),
    )
    for _ in range(5):
        candidates = search.ask(seed=3)
        search = search.tell(candidates, fitness(candidates))
        optimizer.tell(
            [(c.astype(float), -f) for c, f in zip(candidates, fitness(candidates), strict=True)]
        )
    np.testing.assert_allclose(search.mean, optimizer.mean, atol=1e-6)
    np.testing.assert_allclose(search.diagonal, optimizer.__getstate__()["_C"], rtol=1e-5)
    assert search.sigma == np.float64(search.sigma)
    np.testing.assert_allclose(search.sigma, optimizer.__getstate__()["_sigma"], rtol=1e-6)


def test_generations_and_seeds_draw_different_candidates_and_the_same_ones_again():
    search = Search.start(np.zeros(10), 0.1, 4)
    assert np.array_equal(search.ask(1), search.ask(1))
    assert not np.array_equal(search.ask(1), search.ask(2))
    assert not np.array_equal(search.ask(1), replace(search, generation=1).ask(1))


def test_nothing_but_its_fields_is_remembered():
    first = after(Search.start(np.zeros(10), 0.1, 4), 3)
    copy = Search(**{field.name: getattr(first, field.name) for field in fields(first)})
    assert np.array_equal(after(first, 3).mean, after(copy, 3).mean)
