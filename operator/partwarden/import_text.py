"""What was found in a database as PartitionPolicies: YAML, with comments on what was assumed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import PartwardenError
from .guessing import Guess
from .lifecycle import KeyEncoding
from .policy import API_VERSION, KIND, Table
from .render import printable

REFERENCE = "database"
"""Name of the Secret that is put in: what it is called, nobody can know."""
YOURS = "  # yours: a Secret in the policy's namespace with user and password"


@dataclass(frozen=True, slots=True)
class Scope:
    """What all policies of a run have in common."""

    namespace: str | None
    secret: str | None
    """The name of their Secret, where it was told."""
    taken: set[str]
    """Names of policies."""


def refused(table: Table, error: PartwardenError) -> str:
    """Of a table that cannot be managed: a comment."""
    return f"# {printable(str(table))} is left out: {printable(str(error))}\n"


def document(
    table: Table,
    found: Guess,
    key: str,
    connection: dict[str, str | int],
    warnings: Sequence[str],
    scope: Scope,
) -> str:
    """One policy. ``connection``: what is known of the way there; ``warnings``: sentences that stand above it.

    Its name is added to those that are taken.
    """
    name = _name(table, scope.taken)
    lines = [f"# {printable(each)}" for each in (str(table), *warnings)]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", "metadata:", f"  name: {name}"]
    lines += [f"  namespace: {scope.namespace}"] if scope.namespace else []
    lines += ["spec:", "  database:", "    secretRef:"]
    lines += [f"      name: {scope.secret or REFERENCE}{'' if scope.secret else YOURS}"]
    if connection:
        lines += ["    connection:", *(f"      {field}: {_scalar(value)}" for field, value in connection.items())]
    lines += ["  table:", f"    schema: {_scalar(table.schema_)}", f"    name: {_scalar(table.name)}"]
    lines += [f"  {field}: {_scalar(value)}{_why(found, field)}" for field, value in _fields(found, key)]
    if "nameFormat" in found.because and found.name_format is None:
        lines.append(f"  # nameFormat: {found.because['nameFormat']}")
    lines.append("  # retention: absent, so nothing is ever detached or dropped")
    return "\n".join(lines) + "\n"


def _fields(found: Guess, key: str) -> Iterator[tuple[str, Any]]:
    yield "key", key
    if found.encoding is not KeyEncoding.NATIVE:
        yield "keyEncoding", found.encoding.value
    yield "interval", found.interval.value
    if found.timezone != "UTC" or "timezone" in found.because:
        yield "timezone", found.timezone
    yield "premake", found.premake
    if found.start_from is not None:
        yield "startFrom", found.start_from
    if found.name_format is not None:
        yield "nameFormat", found.name_format


def _why(found: Guess, field: str) -> str:
    return f"  # {found.because[field]}" if field in found.because else ""


def _scalar(value: str | int) -> str:
    """As YAML has it, quoted where it must be; dates and the like as well, which are texts here."""
    if isinstance(value, int):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_/.-]*", value) and yaml.safe_load(value) == value
    return value if plain else yaml.safe_dump(value, default_style='"', width=10**6, allow_unicode=True).strip()


def _name(table: Table, taken: set[str]) -> str:
    """Of an object in Kubernetes, once: with the schema, then a number, where it is taken."""
    words = [table.name, f"{table.schema_}-{table.name}", *(f"{table.name}-{number}" for number in range(2, 1000))]
    for each in words:
        name = re.sub(r"[^a-z0-9]+", "-", each.lower()).strip("-")[:200] or "table"
        if name not in taken:
            taken.add(name)
            return name
    raise AssertionError("a thousand tables of one name")
