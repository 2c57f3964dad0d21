"""A policy file for the command line: the same manifest that kubectl applies, read as the API server reads it.

Kubernetes reads YAML 1.1 with differences from PyYAML's: dates stay strings, ``y`` and ``n`` are booleans, ``1:30`` is
no number, ``1e3`` is one, and a number without a fraction is whole however it is written. A key given twice is
refused, as strict validation refuses it, and tags of other types (``!!set``, ``!name``), which no manifest needs.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from yaml.constructor import ConstructorError

from ..api import approval, policy
from ..api.approval import PlanApproval
from ..api.policy import API_VERSION, KIND, Database, PartitionPolicySpec, TableSpec
from ..api.types import OBJECT_NAME, Model
from ..api.validation import check
from ..errors import InvalidSpec, SecretKeyMissing
from ..planner.calendar import load_zone
from ..planner.drop_preconditions import Archives
from ..postgres.conninfo import ConnectionInfo, from_dsn, resolve

PREFIX = "tag:yaml.org,2002:"
IMPLICIT = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (
        "y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF",
        list("yYtToOnNfF"),
    ),
    "float": (
        r"[-+]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
        r"|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": ("<<", ["<"]),
}
"""What an unquoted scalar may mean, and how it may begin; all others are strings."""
REFUSED = [PREFIX + tag for tag in ("timestamp", "binary", "omap", "pairs", "set")]
"""Tags of types that JSON has not."""


class _Loader(yaml.SafeLoader):
    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        digits = node.value.replace("_", "").lower()
        if re.fullmatch(r"[-+]?0[0-7]+", digits):
            return int(digits, 8)
        if re.match(r"[-+]?0[xbo]", digits):
            return int(digits, 0)
        value = float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise ConstructorError(None, None, f"{node.value} is not a number that JSON can hold", node.start_mark)
        # By its digits: beyond 2^53 a float is another number.
        return int(digits) if re.fullmatch(r"[-+]?[0-9]+", digits) else _whole_or_float(digits)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Keys become strings: ``on: x`` has the key "true"."""
        self.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if key is None or isinstance(key, dict | list):
                raise ConstructorError(None, None, "a key must be a string", key_node.start_mark)
            key = key if isinstance(key, str) else json.dumps(key)
            if key in mapping:
                raise ConstructorError(None, None, f"key {json.dumps(key)} is given twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in IMPLICIT.items():
    _Loader.add_implicit_resolver(PREFIX + _tag, re.compile(f"^(?:{_pattern})$"), _first)
for _tag in ("int", "float"):
    _Loader.add_constructor(PREFIX + _tag, _Loader.construct_number)
_Loader.yaml_constructors = {tag: make for tag, make in _Loader.yaml_constructors.items() if tag not in REFUSED}
# As a value it is a string.
_Loader.yaml_constructors[PREFIX + "merge"] = _Loader.construct_yaml_str


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
    except (yaml.YAMLError, ValueError, KeyError) as error:
        # The latter two: what stands behind an explicit tag, such as !!int, is none.
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


# The policy in it.

S = TypeVar("S", bound=TableSpec)

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=OBJECT_NAME)]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid policy. ``database`` is None only where the reader said that it may be left out."""

    name: str | None
    namespace: str | None
    spec: TableSpec
    database: Database | None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def held(self) -> frozenset[str]:
        """What the annotation `policy.ANNOTATION` or ``spec.holds`` names."""
        return policy.holds(self.annotations, self.spec.holds)

    @property
    def archives(self) -> Archives:
        """What is known of archives and approvals without a cluster."""
        approved = policy.parse(self.annotations, policy.APPROVAL)
        return Archives(approved=approved, plan=PlanApproval(approval.parse(self.annotations)))


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


def load(
    text: str,
    source: str,
    *,
    table: dict[str, str] | None = None,
    needs_database: bool = True,
    beneath: Mapping[str, str] | None = None,
) -> Manifest:
    """The one PartitionPolicy in ``text``; ``table`` replaces its spec.table. ``source`` begins the error's message.
    ``beneath``: annotations that are there where the text has none of the name.

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
    model: type[Envelope[Any]] = Envelope[PartitionPolicySpec]
    if not needs_database and isinstance(spec, dict) and spec.get("database") is None:
        spec.pop("database", None)
        model = Envelope[TableSpec]
    whole, problems = check(model, document)
    if whole is None:
        listed = "\n".join(f"  {each}" for each in problems)
        raise InvalidSpec(
            f"{source}: {problems[0]}" if len(problems) == 1 else f"{source}: {len(problems)} problems:\n{listed}"
        )
    about, parsed = whole.metadata, whole.spec
    database = parsed.database if isinstance(parsed, PartitionPolicySpec) else None
    annotations = {**(beneath or {}), **(about.annotations or {})}
    return Manifest(about.name, about.namespace, parsed, database, annotations)


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


def connect(filename: str, dsn: str | None, table: dict[str, str] | None) -> tuple[Manifest, ConnectionInfo]:
    """The policy of a file, and how its database is reached, by ``dsn`` or as it says. Raises `PartwardenError`."""
    found = load(read(filename), filename, table=table, needs_database=dsn is None)
    load_zone(found.spec.timezone)
    if dsn is not None:
        return found, from_dsn(dsn)
    assert found.database is not None
    secret = found.database.secret_ref
    try:
        info = resolve(found.database.model_copy(update={"secret_ref": None}), None, None)
    except SecretKeyMissing as error:
        if secret is None:
            raise InvalidSpec(f"{filename}: {error}; or give --dsn") from None
        raise InvalidSpec(
            f"{filename}: spec.database.secretRef: Secret {secret.name!r} cannot be read from here, and "
            "spec.database.connection does not say host, dbname and user: give --dsn"
        ) from None
    # Here the user's own environment is welcome, for the password above all.
    return found, replace(info, isolated=False)


# What keeps the source of a policy in a cluster.

KEEPERS = {
    "argocd.argoproj.io/tracking-id": "ArgoCD",
    "argocd.argoproj.io/instance": "ArgoCD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "config.k8s.io/owning-inventory": "kpt",
    "meta.helm.sh/release-name": "Helm",
}
"""Annotations and labels of programs that write a policy from its source, and would undo an edit."""
MANAGERS = {"argocd": "ArgoCD", "kustomize-controller": "Flux", "helm-controller": "Flux", "helm": "Helm"}


def keeper(policy: Mapping[str, Any]) -> str:
    """The program that writes the policy from its source; "" where none is known."""
    meta = policy["metadata"]
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    by_mark = [program for mark, program in KEEPERS.items() if mark in marks]
    fields = [each.get("manager", "") for each in meta.get("managedFields") or []]
    by_field = [program for manager, program in MANAGERS.items() if any(each.startswith(manager) for each in fields)]
    return next(iter([*by_mark, *by_field]), "")
