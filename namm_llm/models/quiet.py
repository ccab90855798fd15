"""Libraries that say nothing on the caller's terminal while a model loads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers


def quiet_bitsandbytes() -> None:
    """It warns at every matrix product that int8 computes in half precision, and that an optional
    package is not there.
    """
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no reports of transformers on the caller's terminal, as we check what they say;
    downloads keep their bars.
    """
    output: Any = transformers.utils.logging
    bars, level = output.is_progress_bar_enabled(), output.get_verbosity()
    output.disable_progress_bar()
    output.set_verbosity(output.CRITICAL)
    quiet_bitsandbytes()
    try:
        yield
    finally:
        output.set_verbosity(level)
        if bars:
            output.enable_progress_bar()
