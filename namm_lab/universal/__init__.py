"""One NAMM for text, films and action: learnt by gradient on all of them, then evolved.

A `Domain` has a model and what it reads; the NAMM sees attention, repetition and age alone, so that
one set of weights serves all.
"""
