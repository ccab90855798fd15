"""Budgets that `namm-llm eval --recommend` found, kept in the data folder by model and settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from namm_llm.config import CacheConfig
from namm_llm.config.header import config_to_dict
from namm_llm.errors import BudgetError
from namm_llm.io import data_folder, replacing
from namm_llm.policies.budget import AutoBudget, MeasuredBudget, parse_budget

FILE = "budgets.json"


def keep_budget(fingerprint: str, config: CacheConfig, budget: str, said: str) -> None:
    """Keep a budget for the model with this fingerprint and these settings, whatever their own
    budget. said: what is known of it, for people.
    """
    path = data_folder() / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {**_known(), _key(fingerprint, config): {"budget": budget, "said": said}}
    with replacing(path) as part:
        part.write_text(json.dumps(known, indent=1), "utf-8")


def with_kept_budget(fingerprint: str, model: str, config: CacheConfig) -> CacheConfig:
    """The settings, a budget of `auto` being what was kept for it. BudgetError if nothing was."""
    if not isinstance(config.budget, AutoBudget):
        return config
    name, found = config.policy.name, _known().get(_key(fingerprint, config))
    if found is None:
        raise BudgetError(
            f"no budget was measured for {model} with the policy {name}: run `namm-llm eval "
            f"--model {model} --texts FOLDER --policies {name} --samples 100 "
            "--recommend 0.95` on documents like yours, or give a budget such as 0.25."
        )
    return replace(config, budget=MeasuredBudget(_parsed(found), str(found["said"])))


def _parsed(found: dict[str, Any]) -> Any:
    return parse_budget(str(found["budget"]))


def _known() -> dict[str, Any]:
    """What the file holds. BudgetError for a file of something else."""
    path = data_folder() / FILE
    try:
        known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise BudgetError(f"{path} is damaged: {error}; remove it, and measure again.") from error
    if not isinstance(known, dict):
        raise BudgetError(f"{path} holds no JSON object; remove it, and measure again.")
    return known


def _key(fingerprint: str, config: CacheConfig) -> str:
    settings = config_to_dict(replace(config, budget=parse_budget(1.0), protected=()))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return f"{fingerprint} {config.policy.name} {digest}"
