"""`check_fits`: whether a text fits the positions that a model was trained on, and what to say."""

from __future__ import annotations

import logging
from functools import lru_cache

from namm_llm.errors import ContextError
from namm_llm.models.loading import LoadedModel

_LOG = logging.getLogger("namm_llm")


def check_fits(
    loaded: LoadedModel, tokens: int, before: int, what: str, *, reads_any_length: bool
) -> None:
    """ContextError if `tokens` behind `before` others leave no position for an answer; one line on
    the log, once, if they do because positions become compact.
    """
    positions = loaded.positions
    if positions is None or before + tokens < positions:
        return
    if reads_any_length:
        _say(
            f"{loaded.model_id} was trained on {positions} positions, and the text is longer: what "
            "is kept of it gets compact positions (positions='original' refuses such texts)."
        )
        return
    behind = f" after the {before} of the document" if before else ""
    raise ContextError(
        f"the {what} has {tokens} tokens{behind}, but {loaded.model_id} was trained on "
        f"{positions} positions, one of them for the answer. Ways out: a budget in tokens or "
        "bytes (budget=2048), with which texts of any length are read; a summary, which is "
        "made in parts; RoPE scaling (rope_scaling='yarn:4')."
    )


@lru_cache(maxsize=64)
def _say(line: str) -> None:
    """On stderr, or wherever the program's log goes; each line once in a process."""
    _LOG.warning(line)
