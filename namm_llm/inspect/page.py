"""An inspection as one HTML page that needs nothing but a browser: no network, all of its data
inside.
"""

from __future__ import annotations

import base64
import json
import os
import re
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from torch import Tensor

from namm_llm.errors import UsageError
from namm_llm.inspect.inspection import Inspection
from namm_llm.io import write_text


def write_page(inspection: Inspection, path: str | os.PathLike[str]) -> None:
    """Write the page, all or nothing. Raises UsageError if the disk refuses."""
    write_text(path, page_of(inspection), UsageError)


def page_of(inspection: Inspection) -> str:
    """The page. What comes from the document stands in one JSON text, whose `<` are escaped so that
    nothing in it can end the script.
    """
    parts = files("namm_llm.inspect")
    page, style, script = (
        (parts / f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js")
    )
    data = json.dumps(_data(inspection), separators=(",", ":")).replace("<", "\\u003c")
    values = {"TITLE": escape(inspection.name), "STYLE": style, "SCRIPT": script, "DATA": data}
    return re.sub("%(TITLE|STYLE|SCRIPT|DATA)%", lambda found: values[found[1]], page)


def _data(inspection: Inspection) -> dict[str, Any]:
    names = sorted(set(inspection.kinds))
    return {
        "name": inspection.name,
        "model": inspection.model,
        "code": inspection.is_code,
        "pieces": inspection.pieces,
        "kinds": names,
        "kindOf": _base64(np.array([names.index(kind) for kind in inspection.kinds], np.uint8)),
        "layers": inspection.layers,
        "heads": inspection.sides[0].held.shape[1],
        "sides": [
            {
                "policy": side.policy,
                "held": bitmaps(side.held),
                "nbytes": side.nbytes,
                "fullNbytes": side.full_nbytes,
            }
            for side in inspection.sides
        ],
    }


def bitmaps(held: Tensor) -> list[str]:
    """For each layer and head, layer by layer, base64 of a bit for each token, the lowest bit of a
    byte first.
    """
    return [_base64(np.packbits(head.numpy(), bitorder="little")) for head in held.flatten(0, 1)]


def _base64(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()
