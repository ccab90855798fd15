"""Attention over ragged storage, and the attention that stored tokens received. Knows no policy."""
