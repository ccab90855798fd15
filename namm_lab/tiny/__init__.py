"""Trains `namm-tiny`, the bundled model: a small Llama that looks records up in long documents."""
