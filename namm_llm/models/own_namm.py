"""Which NAMM is a model's own: the one beside its weights, or one that ships with this package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from namm_llm.config import CacheConfig, make_cache_config
from namm_llm.models.card import read_card
from namm_llm.models.locate import locate


def own_namm(name: str | os.PathLike[str]) -> Path | None:
    """The NAMM file of a model; None if it has none, or is on the Hugging Face hub and no folder.

    Looks at headers only. Raises ModelError as `locate` and `read_card` do.
    """
    place = locate(name)
    return None if place is None else read_card(place).namm


def cache_config_of(name: str | os.PathLike[str], **settings: Any) -> CacheConfig:
    """The cache settings of a runner on this model; its own NAMM is the default.

    Raises UsageError for wrong settings, NammFileError for a wrong NAMM.
    """
    policy, budget = settings.get("policy"), settings.get("budget")
    wanted = policy or ("namm" if budget is not None else "")
    if settings.get("namm") is None and wanted == "namm":
        settings["namm"] = own_namm(name)
    return make_cache_config(chunked=True, **settings)
