"""A policy file for the command line: the same manifest that kubectl applies."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from . import hold
from .database import Database
from .errors import InvalidSpec
from .fields import OBJECT_NAME, Model
from .kubeyaml import load_all
from .policy import API_VERSION, KIND, PartitionPolicySpec, TableSpec
from .validation import check

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
    held, approved = hold.parse(about.annotations), hold.parse(about.annotations, hold.APPROVAL)
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
