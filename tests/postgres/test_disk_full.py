"""A full database disk: actions fail with that reason, no row is lost, and all succeed once there is space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.postgres import Database
from lab.small_disk import SmallDisk, small_disk
from partwarden.api.destination import PVC, Destination
from partwarden.archive import create
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.planner.archive_gate import CheckRequest
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState, server_label
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.archived import use_client
from support.meanwhile import NOW, keep, policy
from support.retirement import LONG_AGO, ROWS, YEARS, attached, edit_mark, rows_of_2018, verbs, why

POLICY: dict[str, Any] = {
    "startFrom": "2026-01-01",
    "premake": 2,
    "retention": {"keepFor": "5y", "onExpire": "Drop", "grace": "1h", "archive": {"pvc": {"claimName": "archives"}}},
}


@pytest.fixture
def disk(pg_database: Database) -> Iterator[SmallDisk]:
    """The database is on it."""
    pg_database.execute(YEARS)
    with small_disk(pg_database) as made:
        yield made


def archive(database: Database, folder: Path) -> Report:
    """2018, to another disk."""
    order = JobSpec(
        task=Task.ARCHIVE,
        id="1",
        partition=TableName(schema_="public", name="run_2018", oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
    )
    return create.archive(order, from_dsn(database.dsn), Folder(folder), lambda line: None)


def known(made: Report, check: CheckState | None = None) -> Archives:
    """That archive, as the operator knows it."""
    state = ArchiveState(
        name="run-2018-0",
        round=0,
        server=server_label(made.server),
        oid=made.oid,
        proven=True,
        fingerprint=made.fingerprint,
        location=made.location,
        check=check,
    )
    return Archives({made.oid: (state,)})


def last_token(database: Database, made: Report) -> str:
    """Of the reading that is asked for before the drop."""
    with session(from_dsn(database.dsn)) as connection:
        _, plan = observe_and_plan(connection, policy(**POLICY), NOW, archives=known(made))
    (asked,) = plan.retired.gate.requests
    assert isinstance(asked, CheckRequest)
    return asked.token


def test_retention_keeps_partitions_while_the_disk_is_full_and_continues_afterwards(
    disk: SmallDisk, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    disk.fill()
    made = archive(pg_database, tmp_path)
    assert made.rows == ROWS
    report = keep(pg_database.dsn, archives=known(made), **POLICY)
    assert ("create", "StatementFailed") in verbs(report)
    assert "No space left on device (SQLSTATE 53100)" in why(report)
    assert rows_of_2018(pg_database) == ROWS
    disk.free()
    done = verbs(keep(pg_database.dsn, archives=known(made), **POLICY))
    assert {result for _, result in done} == {"done"}
    assert attached(pg_database) is False

    edit_mark(pg_database, since=LONG_AGO)
    proven = known(made, CheckState(last_token(pg_database, made), ok=True, completed=NOW))
    disk.fill()
    if verbs(keep(pg_database.dsn, archives=proven, **POLICY)) != [("drop", "done")]:
        assert rows_of_2018(pg_database) == ROWS
    disk.free()
    keep(pg_database.dsn, archives=proven, **POLICY)
    assert pg_database.query("SELECT to_regclass('run_2018') IS NULL") == [(True,)]
