"""The reported problems of a run, and a check that a user can act on each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from partwarden.api.database import Database
from partwarden.api.policy import TableSpec
from partwarden.errors import PartwardenError
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import ConnectionInfo, resolve
from partwarden.postgres.engine import maintain

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = "CREATE TABLE run (submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)"


def policy(**fields: Any) -> TableSpec:
    """A policy for public.run, fields by their names in YAML."""
    return TableSpec.model_validate({"table": {"name": "run"}, **fields})


def complaints(info: ConnectionInfo, *, patience: float = 5.0, **fields: Any) -> list[PartwardenError]:
    """Do once what the policy says. Returns what went wrong, nothing when the table is then as it should be."""
    try:
        with session(info, connect_timeout=2) as connection:
            report = maintain(connection, policy(**fields), now=NOW, patience=patience)
    except PartwardenError as error:
        return [error]
    failed = [each.error for each in report.outcomes if each.error]
    found = failed + [each.error for each in report.after.findings if each.error]
    assert found or not report.after.actions, "work is left, and nothing says why"
    return found


def complaint(info: ConnectionInfo, **options: Any) -> PartwardenError:
    """The first thing that went wrong, of which there must be one."""
    found = complaints(info, **options)
    assert found, "nothing went wrong"
    return found[0]


def check(error: PartwardenError, reason: str, *words: str, secrets: Iterable[str] = ()) -> None:
    """The reason is the expected one; the message holds these words, is one readable line, and betrays nothing."""
    said = str(error)
    assert error.reason == reason, said
    for each in words:
        assert each in said, f"{each!r} is not in {said!r}"
    for secret in secrets:
        assert secret not in said
    assert "\n" not in said
    assert "  " not in said
    assert "Traceback" not in said
    assert "psycopg" not in said
    assert "connection to server at" not in said
    assert not said.endswith(".")
    assert len(said) < 700


def login(dsn: str, **changes: str) -> ConnectionInfo:
    """The connection of a policy whose Secret says what ``dsn`` does, but for ``changes``; an empty one is left out."""
    keys = {name: str(value) for name, value in conninfo_to_dict(dsn).items()} | changes
    return _by_secret({name: value for name, value in keys.items() if value})


def login_by_uri(uri: str, **beside: str) -> ConnectionInfo:
    """The connection of a policy whose Secret holds this URI, and other keys beside it."""
    return _by_secret({"uri": uri, **beside})


def _by_secret(secret: dict[str, str]) -> ConnectionInfo:
    return resolve(Database.model_validate({"secretRef": {"name": "login"}}), secret, "login")
