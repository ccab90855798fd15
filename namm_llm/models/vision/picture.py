"""`Picture`: the pixels of one picture or frame, from a file, an array, a PIL image or a data URL.

Nothing is ever fetched. pillow is the extra `vision`; it is imported where a file has to be read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from namm_llm.errors import DocumentError, UsageError
from namm_llm.io import explained

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_MOST_PIXELS = 100_000_000  # a small file can say that it is larger
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # a drive's letter is no scheme
_DATA_URL = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[^;,]*)*(;base64)?,", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture."""

    pixels: NDArray[np.uint8]
    """Red, green and blue, `[height, width, 3]`."""

    @cached_property
    def sha256(self) -> str:
        """Of the pixels and their shape: what caches know the picture by."""
        digest = hashlib.sha256(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()


def picture_of(source: Any) -> Picture:
    """A picture from a `Picture`, a path, a data URL, the bytes of a file, an array or a PIL image.

    Arrays are `[height, width]` or `[height, width, 1, 3 or 4]`, uint8 or floats from 0 to 1.
    Raises UsageError for anything else and for a URL that would have to be fetched, DocumentError
    for a file that is no picture.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, str) and _SCHEME.match(source):
        return picture_of_url(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with explained(path, DocumentError, "read"):
            return _decoded(path.read_bytes(), str(path))
    if isinstance(source, (bytes, bytearray)):
        return _decoded(bytes(source), "the picture")
    if callable(getattr(source, "convert", None)):  # a PIL image
        return Picture(np.asarray(source.convert("RGB")))
    return _of_array(source)


def frames_of(source: Any) -> list[Picture]:
    """The frames of a film: a folder of pictures in the order of their names, a list of whatever
    `picture_of` takes, or an array `[frames, height, width, 3]`. A single picture is one frame.
    """
    if isinstance(source, (str, os.PathLike)) and Path(source).is_dir():
        files = sorted(each for each in Path(source).iterdir() if each.suffix.lower() in SUFFIXES)
        if not files:
            raise DocumentError(f"{source} holds no picture ({', '.join(SUFFIXES)}).")
        return [picture_of(file) for file in files]
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes, bytearray)):
        return [picture_of(each) for each in source]
    if getattr(source, "ndim", 0) == 4:
        return [picture_of(each) for each in source]
    return [picture_of(source)]


def picture_of_url(url: str) -> Picture:
    """The picture of a data URL. UsageError for any other, which would have to be fetched."""
    return _decoded(_data_of(url), "the data URL")


def _of_array(source: Any) -> Picture:
    try:
        array = np.asarray(source)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, dtype=object)
    shape = "x".join(map(str, array.shape)) or type(source).__name__
    if array.ndim == 2:
        array = array[..., None]
    is_picture = array.ndim == 3 and array.shape[2] in (1, 3, 4) and array.size > 0
    if not is_picture or array.dtype.kind not in "uf":
        raise UsageError(
            "a picture is a file, a data URL, a PIL image or an array of height x width x 3 in "
            f"uint8 or from 0 to 1, not {shape} {array.dtype}."
        )
    if array.dtype.kind == "f":
        array = (np.nan_to_num(array).clip(0, 1) * 255).round()
    array = array[..., :3] if array.shape[2] > 1 else array.repeat(3, axis=2)
    return Picture(np.ascontiguousarray(array, dtype=np.uint8))


def _data_of(url: str) -> bytes:
    """The bytes of a data URL."""
    head = _DATA_URL.match(url)
    if head is None:
        found = _SCHEME.match(url)
        raise UsageError(
            f"pictures are never fetched, and {found[0].lower() if found else 'this'} is not the "
            "beginning of a picture's data URL; send data:image/png;base64,..."
        )
    rest = url[head.end() :]
    if not head[1]:
        return unquote_to_bytes(rest)
    try:
        return base64.b64decode("".join(rest.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("the data URL of a picture is no base64.") from error


def _decoded(data: bytes, name: str) -> Picture:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise UsageError(f"{name} needs pillow: pip install 'namm-llm[vision]'.") from error
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DocumentError(
                    f"{name} has {image.width} x {image.height} pixels; make it smaller."
                )
            # cameras turn the picture and not the pixels
            return Picture(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DocumentError(f"{name} is no picture that pillow can read.") from error
    except Image.DecompressionBombError as error:
        raise DocumentError(f"{name} has too many pixels; make it smaller.") from error
