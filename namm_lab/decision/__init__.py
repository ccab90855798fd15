"""Action: a Decision Transformer (arXiv 2106.01345) whose past is in the managed cache.

Environments, episodes to learn from, training, playing, and the table that compares policies. Needs
the extra `rl`.
"""
