"""The evicting key-value cache."""

from namm_llm.cache.managed import ManagedCache, prepare_model
from namm_llm.cache.static import StaticDecoder
from namm_llm.cache.stats import CacheStats

__all__ = ["CacheStats", "ManagedCache", "StaticDecoder", "prepare_model"]
