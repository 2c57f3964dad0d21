"""YAML and JSON as the Kubernetes API server reads them, so that a file means the same here and there.

Kubernetes reads YAML 1.1 with differences from PyYAML's: dates stay strings, ``y`` and ``n`` are booleans, ``1:30`` is
no number, ``1e3`` is one, and a number without a fraction is whole however it is written. A key given twice is
refused, as strict validation refuses it. Tags of a program's own (``!name``), which no manifest needs, are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from .errors import InvalidSpec

_PREFIX = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True)
_WORDS |= dict.fromkeys(["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False)
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def load_all(text: str) -> list[Any]:
    """The documents of a stream, empty ones left out. Raises `InvalidSpec` that says where it cannot be read."""
    try:
        documents = _json(text) if text.lstrip().startswith("{") else None
        if documents is None:
            documents = list(yaml.load_all(text, Loader=_Loader))
        for document in documents:
            _check(document, set(), set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidSpec(f"{where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InvalidSpec("cannot be read: it is nested too deeply") from None
    return [document for document in documents if document is not None]


def _json(text: str) -> list[Any] | None:
    """The one document, or None where this is no JSON: ``{`` begins a YAML mapping, too."""
    try:
        return [json.loads(text, object_pairs_hook=_pairs, parse_float=_whole_or_float, parse_constant=_constant)]
    except json.JSONDecodeError:
        return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidSpec(f"key {json.dumps(key)} is given twice")
        result[key] = value
    return result


def _constant(text: str) -> Any:
    raise InvalidSpec(f"{text} is not a number that JSON can hold")


def _whole_or_float(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def plain(text: str) -> Any:
    """What an unquoted scalar means: None, a bool, a number, else the text itself; NaN and infinities are floats."""
    if text in _WORDS:
        return _WORDS[text]
    if _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", "", 1))
    digits = text.replace("_", "") if text[0] in "+-0123456789" else text
    if match := _INTEGER.fullmatch(digits):
        sign, *forms = match.groups()
        value = next(int(form, base) for form, base in zip(forms, (16, 2, 8, 10), strict=True) if form is not None)
        return -value if sign == "-" else value
    if _FLOAT.fullmatch(digits) and math.isfinite(float(digits)):
        return _whole_or_float(digits)
    return text


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.MappingNode:
            return _PREFIX + "map"
        if kind is yaml.SequenceNode:
            return _PREFIX + "seq"
        if not implicit[0]:
            return _PREFIX + "str"
        return _PREFIX + ("merge" if value == "<<" else _TAGS[type(plain(value))])

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        value = plain(node.value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConstructorError(None, None, f"{node.value} is not a number that JSON can hold", node.start_mark)
        # A whole number may have been written as a float; "<<" as a value is a string.
        if node.tag not in (_PREFIX + _TAGS[type(value)], _PREFIX + "float", _PREFIX + "merge"):
            raise ConstructorError(None, None, f"{node.value!r} is no {node.tag.rpartition(':')[2]}", node.start_mark)
        return value

    def construct_foreign(self, node: yaml.Node) -> Any:
        raise ConstructorError(None, None, f"tag {node.tag} has no place in a manifest", node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        seen: set[str] = set()
        for key, _ in node.value:
            name = _key(key)
            if name in seen:
                raise ConstructorError(None, None, f"key {json.dumps(name)} is given twice", key.start_mark)
            seen.add(name)
            key.value, key.tag = name, _PREFIX + "str"
        return super().construct_mapping(node, deep)


def _key(node: yaml.Node) -> str:
    """Keys become strings: ``on: x`` has the key "true"."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == _PREFIX + "null":
        raise ConstructorError(None, None, "a key must be a string", node.start_mark)
    if node.tag in (_PREFIX + "bool", _PREFIX + "int", _PREFIX + "float"):
        return json.dumps(plain(node.value))
    return str(node.value)


_TAGS: dict[type, str] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}
for _tag in ("null", "bool", "int", "float", "merge"):
    _Loader.add_constructor(_PREFIX + _tag, _Loader.construct_plain)
for _tag in ("timestamp", "binary", "omap", "pairs", "set"):
    _Loader.add_constructor(_PREFIX + _tag, _Loader.construct_foreign)
_Loader.add_constructor(None, _Loader.construct_foreign)


def _check(value: Any, above: set[int], done: set[int]) -> None:
    """Refuse what JSON cannot hold though YAML can: an anchor inside itself, half a surrogate pair."""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidSpec(f"{value!a} is not valid Unicode")
    elif isinstance(value, (dict, list)) and id(value) not in done:
        if id(value) in above:
            raise InvalidSpec("an anchor holds itself")
        above.add(id(value))
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(each, above, done)
        above.remove(id(value))
        done.add(id(value))
