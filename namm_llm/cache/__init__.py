"""The evicting key-value cache."""

from namm_llm.cache.cache import ManagedCache
from namm_llm.cache.stats import CacheStats
from namm_llm.cache.update import EvictionEvent, Stopwatch

__all__ = ["CacheStats", "EvictionEvent", "ManagedCache", "Stopwatch"]
