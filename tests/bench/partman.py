"""A plain table becomes a partitioned one by pg_partman: for comparison, as its guide says under "Online Partitioning".

The table becomes the DEFAULT partition of a new parent, and `partition_data_proc` moves its rows out of it, month by
month. Where the guide leaves something to its reader, it is done so that fewer wait: the view is locked before the
table, and all of the exchange is one message. A month whose rows others change or add while it moves fails, and is then
moved while they may only read.
"""

from __future__ import annotations

import time

import psycopg
from psycopg.errors import RaiseException

from lab import partman
from lab.postgres import Database

from .figures import Figure
from .plain_table import Users, beside, fill
from .waits import month

SCHEMA = "partman"
PREPARE = f"""
CREATE TABLE new_run (LIKE run INCLUDING DEFAULTS) PARTITION BY RANGE (submitted_at);
CREATE INDEX ON new_run (submitted_at);
CREATE TABLE run_template (LIKE run);
ALTER TABLE run_template ADD PRIMARY KEY (id);
SELECT {SCHEMA}.create_partition(p_parent_table := 'public.new_run', p_control := 'submitted_at',
  p_interval := '1 month', p_template_table := 'public.run_template', p_premake := 1,
  p_start_partition := '{month(1):%Y-%m-%d}', p_default_table := false);
UPDATE {SCHEMA}.part_config SET parent_table = 'public.run', premake = 4 WHERE parent_table = 'public.new_run';
"""
CHILDREN = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'new_run'::regclass"
EXCHANGE = """
BEGIN;
LOCK TABLE above IN ACCESS EXCLUSIVE MODE;
LOCK TABLE run, new_run IN ACCESS EXCLUSIVE MODE;
ALTER TABLE run RENAME TO run_default;
ALTER TABLE new_run RENAME TO run;
{children}
ALTER TABLE run ATTACH PARTITION run_default DEFAULT;
CREATE OR REPLACE VIEW above AS SELECT id FROM run WHERE id > 0;
"""
MOVE = f"CALL {SCHEMA}.partition_data_proc('public.run', p_loop_count := 200, p_quiet := true)"
LOCK = "LOCK TABLE run IN SHARE ROW EXCLUSIVE MODE"
MOVE_ONE = f"SELECT {SCHEMA}.partition_data_time('public.run', p_analyze := false)"
LEFT = "SELECT count(*) FROM run_default"
MOST = 10
"""Times that it may fail."""


def install(database: Database) -> str:
    """Create the extension; returns its version. Raises LabError where it cannot be had."""
    return partman.install(database, SCHEMA)


def measure(database: Database, version: str) -> list[Figure]:
    """The exchange beside a transaction of 8 s, undone; the same alone; then the rows move."""
    name = f"pg_partman {version}"
    with database.connect() as connection:
        fill(connection)
        began = time.monotonic()
        for statement in PREPARE.split(";\n")[:-1]:
            connection.execute(statement.encode())
        seconds = time.monotonic() - began
        figures = _exchange(f"{name}, exchange", database, connection, "ROLLBACK", "beside a transaction of 8 s")
        figures += _exchange(f"{name}, exchange alone", database, connection, "COMMIT", "")
        users = Users(database, forgiving=True)
        began = time.monotonic()
        with users.going_on():
            failures = _move(connection)
        seconds += time.monotonic() - began
        users.check(name)
        ((left,),) = database.query(LEFT)
        assert left == 0, f"{name}: {left} rows are left in DEFAULT"
    figures += users.figures(f"{name}, rows move", {}, None, None)
    note = "without the exchange; with pauses of 1 s, as is its default"
    return [
        *figures,
        Figure(f"{name}: months for which it failed at first", len(failures), "", note="; ".join(failures)),
        Figure(f"{name}: until done", seconds, "s", note=note),
    ]


def _exchange(name: str, database: Database, connection: psycopg.Connection, end: str, how: str) -> list[Figure]:
    """The parent and the table exchange names, and the table becomes DEFAULT."""
    children = [str(child) for (child,) in database.query(CHILDREN)]
    renames = "\n".join(f"ALTER TABLE {each} RENAME TO {each.removeprefix('new_')};" for each in children)
    message = f"{EXCHANGE.format(children=renames)}{end}"
    users = Users(database, forgiving=True)
    with users.going_on():
        if how:
            with beside(database.dsn):
                connection.execute(message.encode())
        else:
            connection.execute(message.encode())
    users.check(name)
    return users.figures(name, {}, None, None)


def _move(connection: psycopg.Connection) -> list[str]:
    """Move all rows. Returns why it failed: for a month whose rows others change or add while it moves.

    Such a month is moved under a lock that lets them read only, and the procedure is called again.
    """
    failures: list[str] = []
    while True:
        try:
            connection.execute(MOVE)
        except RaiseException as error:
            failures.append(str(error.diag.message_primary).partition("\n")[0])
            assert len(failures) < MOST, f"pg_partman fails again and again: {failures}"
            with connection.transaction():
                connection.execute(LOCK)
                connection.execute(MOVE_ONE)
        else:
            return failures
