"""The lab: tasks, evaluation, training and benchmarks of NAMMs and cache policies."""
