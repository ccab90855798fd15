"""The evicting key-value cache."""

from namm_llm.cache.cache import ManagedCache, prepare_model
from namm_llm.cache.stats import CacheStats

__all__ = ["CacheStats", "ManagedCache", "prepare_model"]
