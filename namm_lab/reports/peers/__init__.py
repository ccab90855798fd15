"""kvpress, measured in an environment of its own (it needs transformers < 5.3) on the same weights,
in turn with ours.

`make bench-kvpress` makes the environment and measures; `worker.py` is what runs there and imports
nothing of this project.
"""
