"""JSON schemas as a grammar needs them: objects without unnamed properties, references that start
at another place, and the keywords that no grammar enforces.

Works on schemas as mappings and lists; changes none of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from namm_llm.errors import UsageError

_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_SINGLE = frozenset(
    "items additionalItems additionalProperties not if then else contains propertyNames".split()
)
# of an `allOf`, what can be joined with the properties of the whole
_OBJECT = frozenset("type properties required additionalProperties title description".split())
# what llguidance does not know, and what a grammar without look-back cannot know
_UNENFORCED = frozenset(
    "contains minContains maxContains uniqueItems not if then else propertyNames "
    "dependentRequired dependentSchemas dependencies unevaluatedProperties unevaluatedItems".split()
)
_DEPTH = 16  # of `allOf` within `allOf`; one that contains itself has no end


def closed(schema: Any, root: Mapping[str, Any] | None = None) -> Any:
    """The schema in which an object that names its properties has no others, unless it says so.

    The parts of an `allOf` that name properties become properties of the whole. root: where
    references start, the outermost schema.
    """
    if not isinstance(schema, dict):
        return schema
    root = schema if root is None else root
    schema = _joined(schema, root, _DEPTH)
    found = _changed(schema, partial(closed, root=root))
    named = isinstance(schema.get("properties"), dict)
    return {"additionalProperties": False, **found} if named else found


def anchored(schema: Any, at: str) -> Any:
    """The schema as a part of another one, at the pointer `at` of it: its references start there.

    Its `$schema` and `$id`, which would start references anew, are left out.
    """
    if not isinstance(schema, dict):
        return schema
    found = _changed(schema, partial(anchored, at=at))
    if isinstance(reference := found.get("$ref"), str) and reference.startswith("#"):
        found["$ref"] = at + reference[1:]
    return {key: value for key, value in found.items() if key not in ("$schema", "$id")}


def unenforced(schema: Any) -> set[str]:
    """The keywords of the schema that no answer is held to."""
    own = set(schema) & _UNENFORCED if isinstance(schema, dict) else set()
    return own.union(*(unenforced(inner) for inner in _inner(schema)))


def _changed(schema: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy in which each schema directly inside is changed. Properties may bear the name of a
    keyword, and what stands in `const`, `enum`, `default` or `examples` is no schema.
    """
    found = dict(schema)
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            found[key] = {name: change(inner) for name, inner in value.items()}
        elif isinstance(value, list) and key in {*_LISTS, "items"}:
            found[key] = [change(inner) for inner in value]
        elif key in _SINGLE:
            found[key] = change(value)
    return found


def _inner(schema: Any) -> Iterator[Any]:
    """The schemas directly inside."""
    seen: list[Any] = []
    if isinstance(schema, dict):
        _changed(schema, seen.append)
    return iter(seen)


def _joined(schema: dict[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The schema whose `allOf` has only the parts that do not name properties."""
    if not isinstance(schema.get("allOf"), list) or not depth:
        return schema
    whole = {key: value for key, value in schema.items() if key != "allOf"}
    left = []
    for part in schema["allOf"]:
        found = _resolved(part, root)
        found = _joined(found, root, depth - 1) if isinstance(found, dict) else found
        if isinstance(found, dict) and set(found) <= _OBJECT and "properties" in found:
            whole = _merged(whole, found)
        else:
            left.append(part)
    return {**whole, "allOf": left} if left else whole


def _merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    properties = dict(whole.get("properties", {}))
    for name, inner in part["properties"].items():
        properties[name] = {"allOf": [properties[name], inner]} if name in properties else inner
    required = list(dict.fromkeys([*whole.get("required", ()), *part.get("required", ())]))
    more = {"required": required} if required else {}
    return {**part, **whole, "properties": properties, **more}


def _resolved(part: Any, root: Mapping[str, Any]) -> Any:
    """What a part refers to, if it is nothing but a reference into `root`; else the part."""
    if not isinstance(part, dict) or set(part) - {"title", "description"} != {"$ref"}:
        return part
    found: Any = root
    for step in str(part["$ref"]).removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return part if found is None or not str(part["$ref"]).startswith("#") else found


def response_schema(response_format: Mapping[str, Any] | None) -> Any:
    """The JSON schema of OpenAI's `response_format`; None for free text. UsageError for another
    one.
    """
    kind = (response_format or {"type": "text"}).get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    named = (response_format or {}).get("json_schema")
    if kind == "json_schema" and isinstance(named, Mapping) and "schema" in named:
        return named["schema"]
    if kind == "json_schema":
        raise UsageError("response_format of the type json_schema needs a json_schema.schema.")
    raise UsageError(
        f"response_format must be of the type text, json_object or json_schema, not {kind!r}."
    )
