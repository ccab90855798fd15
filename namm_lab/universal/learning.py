"""Distilled on several domains, then evolved on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from namm_lab.rows import Row
from namm_lab.train.calibration import zeroed
from namm_lab.train.collection import FeatureSample
from namm_lab.train.distillation import DistilSettings, fit, initial
from namm_lab.train.search import Search, Vector
from namm_lab.universal.domain import Domain
from namm_llm import CacheConfig, Namm, make_cache_config

Report = Callable[[Row], None]


@dataclass(frozen=True)
class Recipe:
    """How it is learnt."""

    documents: int = 4
    """Of each domain, to distil from."""
    rounds: int = 2
    """The first with the full cache, the others under the NAMM's own evictions."""
    steps: int = 600
    """Gradient steps of a round."""
    rate: float = 5e-3
    budget: float = 0.25
    generations: int = 8
    population: int = 8
    sigma: float = 0.05
    judged: int = 4
    """Documents of each domain that candidates of a generation meet."""
    validation: int = 8
    """Others, which decide what is kept."""
    validate_every: int = 4
    seed: int = 0


def config_of(namm: Namm | None, domain: Domain, budget: float | None) -> CacheConfig:
    """A NAMM's cache in a domain, each head with a budget of its own; None for the full cache."""
    name = "full" if namm is None else "namm"
    return make_cache_config(
        name, namm=namm, budget=budget, budget_scope="head", interval=domain.interval
    )


def distil_on(domains: Sequence[Domain], form: Namm, recipe: Recipe, report: Report) -> Namm:
    """By gradient: which tokens later ones attend to, as much from each domain."""
    settings = DistilSettings(steps=recipe.steps, rate=recipe.rate, batch=8 * len(domains))
    rng, namm = random.Random(recipe.seed), zeroed(form)
    samples: dict[str, list[FeatureSample]] = {domain.name: [] for domain in domains}
    for number in range(recipe.rounds):
        for domain in domains:
            config = config_of(namm, domain, recipe.budget if number else None)
            samples[domain.name] += domain.samples(config, recipe.seed, recipe.documents)
        least = min(map(len, samples.values()))
        balanced = [each for found in samples.values() for each in rng.sample(found, least)]
        namm = namm if number else initial(namm, balanced, recipe.seed)
        namm = fit(namm, balanced, settings, rng, report)
    return namm


def evolve_on(domains: Sequence[Domain], start: Namm, recipe: Recipe, report: Report) -> Namm:
    """By separable CMA-ES, from a NAMM: the mean share over the domains of the full cache's
    likelihood. Documents that no candidate has met decide whether it is better than the start.
    """
    search = Search.start(start.vector.numpy(), recipe.sigma, recipe.population)
    best, best_score = search.mean, -np.inf
    for generation in range(recipe.generations + 1):
        if generation % recipe.validate_every == 0 or generation == recipe.generations:
            found = shares(domains, start, [search.mean], recipe, 10**6, recipe.validation)[0]
            if (score := float(found.mean())) > best_score:
                best, best_score = search.mean, score
            shown = dict(zip([each.name for each in domains], found.tolist(), strict=True))
            report({"generation": generation, "sigma": search.sigma, **shown, "best": best_score})
        if generation < recipe.generations:
            candidates = search.ask(recipe.seed)
            seed = 2 * 10**6 + generation
            judged = shares(domains, start, list(candidates), recipe, seed, recipe.judged)
            search = search.tell(candidates, judged.mean(1).tolist())
    return replace(start, theta=torch.from_numpy(best.copy()))


def shares(
    domains: Sequence[Domain],
    form: Namm,
    candidates: Sequence[Vector],
    recipe: Recipe,
    seed: int,
    count: int,
) -> Tensor:
    """Share of the full cache's likelihood: `[candidates, domains]`."""
    namms = [replace(form, theta=torch.from_numpy(each.copy())) for each in candidates]
    columns = []
    for domain in domains:
        configs = [config_of(None, domain, None)]
        configs += [config_of(namm, domain, recipe.budget) for namm in namms]
        found = domain.likelihoods(configs, seed, count)
        columns.append(found[1:] / found[0])
    return torch.stack(columns, 1)
