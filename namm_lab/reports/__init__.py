"""Reports: measurements whose rows are committed in `benchmarks/results/`, and the tables made of
them.
"""
