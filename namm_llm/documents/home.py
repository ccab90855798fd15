"""Where this program keeps what it keeps for its user."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "NAMM_LLM_HOME"


def data_folder() -> Path:
    """The folder of all kept data, which need not exist yet: `NAMM_LLM_HOME`, or the platform's place for a user's data."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser()
    from platformdirs import user_data_path

    return user_data_path("namm-llm", appauthor=False)
