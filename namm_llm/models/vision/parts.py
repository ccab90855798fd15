"""Pictures in messages: the forms in which OpenAI, LangChain, transformers and our own callers give
them, and the mark that stands for a picture in a text.

A mark is two characters for private use around the hash of the pixels. So texts that differ only in
a picture differ, and everything that handles texts can handle it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from namm_llm.errors import UsageError
from namm_llm.models.vision.picture import Picture, frames_of, picture_of, picture_of_url

MARK = re.compile("\uf8f0([0-9a-f]{64})\uf8f1")
_KINDS = ("image", "image_url", "input_image", "video", "picture")


def mark_of(picture: Picture) -> str:
    """What stands for a picture in a text."""
    return f"\uf8f0{picture.sha256}\uf8f1"


def pictures_of(part: Any) -> list[Picture] | None:
    """The pictures of a part of a message; None for a part that is something else.

    `{"type": "image_url", "image_url": {"url": "data:..."}}`, `{"type": "image", "image": ...}`,
    `{"type": "video", "video": ...}`, `{"type": "image", "base64": ..., "mime_type": ...}`, a path
    or a `Picture`. Raises UsageError, DocumentError.
    """
    if isinstance(part, (Picture, os.PathLike)):
        return frames_of(part)
    if not isinstance(part, Mapping):
        return None if isinstance(part, str) else frames_of(part)
    kind = part.get("type")
    if kind not in _KINDS:
        return None
    if kind == "video":
        source = next((part[key] for key in ("video", "path", "frames") if key in part), None)
        if source is None:
            raise UsageError(
                "a part of the type video has no video: give a folder of pictures, a list of them "
                "or an array."
            )
        return frames_of(source)
    url = _url_of(part)
    return [picture_of(_source_of(part)) if url is None else picture_of_url(url)]


def _url_of(part: Mapping[str, Any]) -> str | None:
    """The URL of a part that has one; of what has none but base64, its data URL."""
    url = part.get("image_url", part.get("url"))
    if isinstance(url, Mapping):
        url = url.get("url")
    if url is not None:
        return str(url)
    own = part.get("source")  # of Anthropic, which LangChain takes too
    data = part.get("base64", part.get("data"))
    if data is None and isinstance(own, Mapping):
        part, data = {**own, "mime_type": own.get("media_type")}, own.get("data")
    if isinstance(data, str):
        return f"data:{part.get('mime_type') or 'image/png'};base64,{data}"
    return None


def _source_of(part: Mapping[str, Any]) -> Any:
    """What a part without a URL says its picture is."""
    for key in ("image", "path"):
        if part.get(key) is not None:
            return part[key]
    raise UsageError(
        f"a part of the type {part.get('type')} has no picture: it needs image_url (a data URL), "
        "base64, or image (a file, an array or a PIL image)."
    )


def parts_of(text: str) -> list[dict[str, str]]:
    """A text with marks as the parts that chat templates know."""
    parts, stop = list[dict[str, str]](), 0
    for mark in MARK.finditer(text):
        if mark.start() > stop:
            parts.append({"type": "text", "text": text[stop : mark.start()]})
        parts.append({"type": "image"})
        stop = mark.end()
    if stop < len(text) or not parts:
        parts.append({"type": "text", "text": text[stop:]})
    return parts


def has_pictures(messages: Sequence[Any]) -> bool:
    """Whether a message holds a part with a picture, whatever is wrong with it."""
    return any(
        isinstance(part, Mapping) and part.get("type") in _KINDS
        for message in messages
        if isinstance(message, Mapping) and isinstance(message.get("content"), (list, tuple))
        for part in message["content"]
    )


def marked_messages(messages: Sequence[Any]) -> tuple[list[Any], list[Picture]]:
    """The messages with marks for pictures, and the pictures in their order."""
    marked, found = list[Any](), list[Picture]()
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, (list, tuple)):
            parts = list[Any]()
            for part in content:
                pictures = pictures_of(part) if isinstance(part, Mapping) else None
                if pictures is None:
                    parts.append(part)
                else:
                    found += pictures
                    parts += map(mark_of, pictures)
            message = {**message, "content": parts}
        marked.append(message)
    return marked, found


def document_parts(source: Any) -> list[str | Picture] | None:
    """A document with pictures in parts; None for one of text alone.

    A path (not a text that names one), an array or a PIL image is a picture or a film, see
    `frames_of`; so is a part of a message that holds one. Of a list each member.
    """
    items = list(source) if isinstance(source, (list, tuple)) else [source]
    if not any(_shows(item) for item in items):
        return None
    parts = list[str | Picture]()
    for item in items:
        if isinstance(item, str):
            parts.append(item)
        elif isinstance(item, Mapping) and item.get("type") == "text":
            parts.append(str(item.get("text", "")))
        else:
            found = pictures_of(item)
            if found is None:
                raise UsageError(f"a document has no parts of the type {item.get('type')}.")
            parts += found
    return parts


def _shows(item: Any) -> bool:
    """Whether this is no text, but something that pixels can be had from."""
    if isinstance(item, Mapping):
        return item.get("type") in _KINDS
    is_pixels = callable(getattr(item, "convert", None)) or getattr(item, "ndim", 0) in (2, 3, 4)
    return is_pixels or isinstance(item, (Picture, os.PathLike))
