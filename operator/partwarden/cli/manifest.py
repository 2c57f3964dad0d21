"""YAML and JSON as the Kubernetes API server reads them, so that a file means the same here and there.

Kubernetes reads YAML 1.1 with differences from PyYAML's: dates stay strings, ``y`` and ``n`` are booleans, ``1:30`` is
no number, ``1e3`` is one, and a number without a fraction is whole however it is written. A key given twice is
refused, as strict validation refuses it. Tags of a program's own (``!name``), which no manifest needs, are refused.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from yaml.constructor import ConstructorError

from ..api import policy
from ..api.database import Database
from ..api.policy import API_VERSION, KIND, PartitionPolicySpec, TableSpec
from ..api.types import OBJECT_NAME, Model
from ..api.validation import check
from ..errors import InvalidSpec

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


# A policy file for the command line: the same manifest that kubectl applies.
#

S = TypeVar("S", bound=TableSpec)

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=OBJECT_NAME)]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid policy. ``database`` is None only where the reader said that it may be left out."""

    name: str | None
    namespace: str | None
    spec: TableSpec
    database: Database | None
    held: frozenset[str] = frozenset()
    """What the annotation of `partwarden.hold` names."""
    approved: frozenset[str] = frozenset()
    """What that of `hold.APPROVAL` names."""


class Metadata(Model):
    """What of an object's metadata a person writes, and the names of what the API server adds."""

    name: ObjectName | None = None
    generate_name: str | None = None
    namespace: ObjectName | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[dict[str, Any]] | None = None
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    managed_fields: Any = None
    self_link: Any = None

    @model_validator(mode="after")
    def _is_named(self) -> Metadata:
        if self.name is None and not self.generate_name:
            raise PydanticCustomError("missing", "is required", {"path": ("name",)})
        return self


class Envelope(Model, Generic[S]):
    """The whole manifest. ``status`` may be there, as in what ``kubectl get -o yaml`` prints, and is not read."""

    api_version: Literal["partwarden.dev/v1alpha1"]
    kind: Literal["PartitionPolicy"]
    metadata: Metadata
    spec: S
    status: Any = None


def read(path: str) -> str:
    """The text of a file, or of standard input for ``-``. Raises `InvalidSpec`."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"{path}: is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from None


def load(text: str, source: str, *, table: dict[str, str] | None = None, needs_database: bool = True) -> Manifest:
    """The one PartitionPolicy in ``text``; ``table`` replaces its spec.table. ``source`` begins the error's message.

    Raises `InvalidSpec` that holds every problem found, a line for each.
    """
    try:
        document = _the_policy(load_all(text))
    except InvalidSpec as error:
        raise InvalidSpec(f"{source}: {error}") from None
    if document.get("metadata") is None:
        document = {**document, "metadata": {}}
    spec = document.get("spec")
    if isinstance(spec, dict):
        spec = {**spec, "table": table} if table else dict(spec)
        document = {**document, "spec": spec}
    if needs_database or not isinstance(spec, dict) or spec.get("database") is not None:
        whole, problems = check(Envelope[PartitionPolicySpec], document)
        if whole is not None:
            return _manifest(whole, whole.spec.database)
    else:
        spec.pop("database", None)
        part, problems = check(Envelope[TableSpec], document)
        if part is not None:
            return _manifest(part, None)
    raise InvalidSpec(
        f"{source}: {problems[0]}"
        if len(problems) == 1
        else f"{source}: {len(problems)} problems:\n" + "\n".join(f"  {each}" for each in problems)
    )


def _manifest(whole: Envelope[S], database: Database | None) -> Manifest:
    about = whole.metadata
    held, approved = policy.parse(about.annotations), policy.parse(about.annotations, policy.APPROVAL)
    return Manifest(about.name, about.namespace, whole.spec, database, held, approved)


def _the_policy(documents: list[Any]) -> dict[str, Any]:
    """The only document, or the only PartitionPolicy among several."""
    for document in documents:
        if not isinstance(document, dict):
            raise InvalidSpec(f"a manifest must be an object with apiVersion: {API_VERSION} and kind: {KIND}")
    policies = [each for each in documents if each.get("kind") == KIND] if len(documents) > 1 else documents
    if len(policies) == 1:
        policy: dict[str, Any] = policies[0]
        if policy.get("kind", KIND) != KIND:
            raise InvalidSpec(f"kind: must be {KIND}, found {policy['kind']!r}")
        return policy
    if not documents:
        raise InvalidSpec("is empty: a PartitionPolicy was expected")
    names = [str((each.get("metadata") or {}).get("name")) for each in policies]
    found = f"{len(policies)}: {', '.join(names)}" if policies else f"none in {len(documents)} documents"
    raise InvalidSpec(f"must hold exactly one {KIND}, found {found}")
