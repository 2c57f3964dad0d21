"""SQLSTATE -> our errors, whatever the words."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg

from partwarden.postgres.errors import is_lost, translate
from support.complaints import check

WORDS = "les mots du serveur"

STATES = {
    "55P03": "TableBusy",
    "40P01": "TableBusy",
    "42P07": "NameTaken",
    "42710": "NameTaken",
    "23514": "DefaultHasRows",
    "42P17": "TableChanged",
    "23505": "TableChanged",
    "42P01": "TableChanged",
    "42704": "TableChanged",
    "42809": "TableChanged",
    "3F000": "TableChanged",
    "42501": "InsufficientPrivilege",
    "25006": "ReadOnlyServer",
    "57P01": "DatabaseUnreachable",
    "57P02": "DatabaseUnreachable",
    "57P03": "DatabaseUnreachable",
    "57P04": "DatabaseUnreachable",
    "57P05": "DatabaseUnreachable",
    "08006": "DatabaseUnreachable",
    "08P01": "DatabaseUnreachable",
    "25P03": "DatabaseUnreachable",
    "25P04": "DatabaseUnreachable",
    "57014": "StatementFailed",
    "40001": "StatementFailed",
    "53100": "StatementFailed",
    "53200": "StatementFailed",
    "58030": "StatementFailed",
    "XX000": "StatementFailed",
    "XX001": "StatementFailed",
    "42601": "StatementRejected",
    "55000": "StatementRejected",
    "55006": "StatementRejected",
    "0A000": "StatementRejected",
    "42P16": "StatementRejected",
    "P0001": "StatementRejected",
}


@pytest.mark.parametrize(("state", "reason"), STATES.items())
def test_every_sqlstate_has_its_reason(state: str, reason: str) -> None:
    error = pg.lookup(state)(WORDS)
    check(translate(error, "partition public.run_2026"), reason, "partition public.run_2026", WORDS)
    assert is_lost(error) == (reason == "DatabaseUnreachable")


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.InterfaceError])
def test_what_has_no_sqlstate_is_a_lost_connection(kind: type[psycopg.Error]) -> None:
    error = kind("consuming input failed: server closed the connection unexpectedly\n\tThis probably means")
    check(translate(error, "table public.run"), "DatabaseUnreachable", "table public.run: the connection was lost")


@pytest.mark.parametrize("kind", [psycopg.DataError, psycopg.ProgrammingError])
def test_what_psycopg_itself_refuses_is_no_outage(kind: type[psycopg.Error]) -> None:
    check(translate(kind(WORDS), "table public.run"), "StatementRejected", WORDS)


def test_statement_pooling_is_a_mistake_and_no_outage_although_the_pooler_hangs_up() -> None:
    error = pg.ProtocolViolation("transaction blocks not allowed in statement pooling mode")
    found = translate(error, "database 'orders' at pooler:6432")
    check(found, "BehindPooler", "database 'orders' at pooler:6432: transaction blocks not allowed", "pool_mode")
    assert is_lost(error)
