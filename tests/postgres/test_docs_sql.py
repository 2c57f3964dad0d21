"""The SQL of the pages: the role of the tutorial can do all that a policy needs, and uninstalling leaves no trace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.postgres import Database
from support.meanwhile import findings, keep
from support.retirement import DEFAULT, DETACH, FORMS, ROWS, YEARS, comment, rows_of_2018, set_comment, verbs

DOCS = Path(__file__).parents[2] / "docs"
CLOSED = "CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');"
CLOSED += "INSERT INTO run (submitted_at) SELECT '2025-05-05Z' FROM generate_series(1, 1000)"
CLOSE: dict[str, Any] = {**DETACH, "maintenance": {"onClose": "Vacuum", "analyzeParent": False}}
TRACES = "SELECT count(*)::int FROM pg_description WHERE description LIKE '%partwarden%'"
CHECKS = "SELECT conname::text FROM pg_constraint WHERE contype = 'c' AND conrelid = 'run_2018'::regclass ORDER BY 1"


def statements(page: str) -> str:
    """The first block of SQL that creates a role, or is a file."""
    blocks = re.findall(r"```sql\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return next(str(block) for block in blocks if block.startswith(("CREATE ROLE", "-- ")))


@FORMS
def test_uninstalling_removes_every_trace_and_nothing_else(database: Database, form: str) -> None:
    database.execute(form + CLOSED)
    set_comment(database, "of the user\n\nin two parts")
    set_comment(database, "partwarden.dev/detached, as the page says", "run_2026")
    database.execute("ALTER TABLE run ADD CONSTRAINT mine CHECK (submitted_at > '1970-01-01Z' AND id > 0)")
    for _ in range(2):
        keep(database.dsn, **CLOSE)
    assert database.query(TRACES) == [(3,)]
    assert len(database.query(CHECKS)) == 2
    assert "partwarden.dev/closed" in str(comment(database, "run_2025"))

    forget = statements("how-to/uninstall.md")
    for _ in range(2):
        database.execute(forget)
        assert database.query(TRACES) == [(1,)]
    assert database.query(CHECKS) == [("mine",)]
    assert comment(database) == "of the user\n\nin two parts"
    assert comment(database, "run_2025") is None
    assert comment(database, "run_2026") == "partwarden.dev/detached, as the page says"
    assert rows_of_2018(database) == ROWS
    # It is a table like any other now.
    assert verbs(keep(database.dsn, **{**DETACH, "retention": {"keepFor": "50y"}})) == []


def test_a_table_of_another_role_is_left_alone(database: Database) -> None:
    database.execute(YEARS)
    keep(database.dsn, **DETACH)
    before, role = comment(database), database.new_role()
    with psycopg.connect(role.dsn, autocommit=True) as connection:
        connection.execute(statements("how-to/uninstall.md").encode())
    assert comment(database) == before


@pytest.mark.parametrize("form", [YEARS, YEARS + DEFAULT], ids=["plain", "with DEFAULT"])
def test_the_role_of_the_tutorial_can_do_all_that_a_policy_needs(database: Database, form: str) -> None:
    owner, login = database.new_role(), database.new_role()
    create, grants = statements("tutorial/first-policy.md").split(";", 1)
    assert create.startswith("CREATE ROLE partwarden LOGIN PASSWORD ")
    database.execute(grants.replace("orchestrator", owner.name).replace("partwarden", login.name))
    database.execute(f"SET ROLE {owner.name}; {form}; RESET ROLE")
    done = verbs(keep(login.dsn, **{**DETACH, "premake": 1}))
    assert ("create", "done") in done
    assert ("detach", "done") in done
    assert {result for _, result in done} == {"done"}
    assert [each for each in findings(keep(login.dsn, **{**DETACH, "premake": 1})) if each.error] == []
