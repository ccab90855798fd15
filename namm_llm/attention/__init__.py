"""Attention over ragged storage, and what was paid to it."""
