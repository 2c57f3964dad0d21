"""A snapshot of a table's database: tables, their relations and every row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

import psycopg

from model.keys import Kind

LABEL = "partwarden.dev/detached "
CLOSED = "partwarden.dev/closed "
SETUP = """
CREATE SCHEMA lab;
GRANT USAGE ON SCHEMA lab TO PUBLIC;
CREATE TABLE lab.clock AS SELECT '{now}'::timestamptz - clock_timestamp() AS ahead;
GRANT SELECT, UPDATE ON lab.clock TO PUBLIC;
SET allow_system_table_mods = on;
ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp;
CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
  AS 'SELECT pg_catalog.true_clock_timestamp() + (SELECT ahead FROM lab.clock)';
CREATE FUNCTION lab.rows() RETURNS TABLE (oid oid, id int8, at text, note text) LANGUAGE plpgsql AS $$
DECLARE each oid; BEGIN
  FOR each IN SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'note'
              WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' LOOP
    RETURN QUERY EXECUTE format('SELECT %s::oid, id, at::text, note FROM ONLY %s', each, each::regclass);
  END LOOP;
END $$;
CREATE FUNCTION lab.count_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  IF current_setting('lab.last', true) <> '' THEN
    PERFORM set_config(
      'lab.done', (coalesce(nullif(current_setting('lab.done', true), ''), '0')::int + 1)::text, false);
    IF current_setting('lab.done') = current_setting('lab.last') THEN
      PERFORM pg_terminate_backend(pg_backend_pid());
    END IF;
  END IF;
END $$;
CREATE EVENT TRIGGER count_ddl ON ddl_command_end EXECUTE FUNCTION lab.count_ddl();
"""
"""The server's clock in this database is set by `lab.clock`. A session with `lab.last` ends after so much DDL."""

TABLES = """
SELECT c.oid::int8, c.relname, c.relkind::text, p.relname, coalesce(i.inhdetachpending, false),
       pg_get_expr(c.relpartbound, c.oid), d.description, c.relispartition
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class p ON p.oid = i.inhparent
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relname
"""

Row = tuple[object, ...]


@dataclass(frozen=True)
class Table:
    """``parent`` is the name of the table that it is a partition of; ``range`` None where it has no bounds."""

    oid: int
    name: str
    kind: str
    parent: str | None
    pending: bool
    bounds: str | None
    range: tuple[datetime | None, datetime | None] | None
    comment: str | None

    @property
    def is_partition(self) -> bool:
        """Whether it is a partition of the managed table, be its detach pending or not."""
        return self.parent == "run"

    @property
    def is_default(self) -> bool:
        return self.bounds == "DEFAULT"

    @property
    def is_marked(self) -> bool:
        """Whether the last line of its comment is Partwarden's mark of a detach, be it this table's own or not."""
        _, _, last = (self.comment or "").rpartition("\n")
        try:
            return last.startswith(LABEL) and "phase" in dict(json.loads(last.removeprefix(LABEL)))
        except (ValueError, TypeError):
            return False

    @property
    def text(self) -> str:
        """Its comment without what Partwarden wrote there."""
        lines = (self.comment or "").split("\n")[: -1 if self.is_marked else None]
        return "\n".join(line for line in lines if not line.startswith(f'{CLOSED}{{"oid": {self.oid}'))


@dataclass(frozen=True)
class Snapshot:
    """``rows`` are (id, key, note) by the table that holds them; ``seen`` are the ids that the parent shows."""

    now: datetime
    tables: dict[int, Table]
    rows: dict[int, frozenset[Row]]
    seen: frozenset[int]
    items: frozenset[Row]
    """Rows of the table that references the managed one."""

    @property
    def partitions(self) -> list[Table]:
        """Of the managed table, by name."""
        return [each for each in self.tables.values() if each.is_partition]

    @property
    def alone(self) -> list[Table]:
        """Tables that are no partitions now, and like the managed one, by name."""
        return [each for each in self.tables.values() if each.parent is None and each.name not in ("run", "item")]

    @property
    def root(self) -> Table:
        return next(each for each in self.tables.values() if each.name == "run")

    def holder(self, oid: int) -> Table:
        """The partition of the managed table, or the table of its own, that holds what is in this table."""
        table = self.tables[oid]
        while table.parent is not None and table.parent != "run":
            table = next(each for each in self.tables.values() if each.name == table.parent)
        return table


def take(connection: psycopg.Connection, kind: Kind) -> Snapshot:
    """Read everything in one snapshot. Asserts that no row exists twice."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tables = {
            oid: Table(oid, name, relkind, parent, pending, bounds, kind.bounds(bounds), comment)
            for oid, name, relkind, parent, pending, bounds, comment, _ in connection.execute(TABLES).fetchall()
        }
        rows: dict[int, set[Row]] = {}
        ids: list[int] = []
        for oid, *row in connection.execute("SELECT oid::int8, id, at, note FROM lab.rows()").fetchall():
            rows.setdefault(oid, set()).add(tuple(row))
            ids.append(row[0])
        seen = [number for (number,) in connection.execute("SELECT id FROM run").fetchall()]
        items: list[Row] = []
        if any(each.name == "item" for each in tables.values()):
            items = connection.execute("SELECT id, run_id, run_at::text FROM item").fetchall()
        ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    assert len(ids) == len(set(ids)), f"doubled rows: {sorted(each for each in ids if ids.count(each) > 1)[:10]}"
    assert len(seen) == len(set(seen)), "the parent shows rows twice"
    return Snapshot(
        now, tables, {oid: frozenset(each) for oid, each in rows.items()}, frozenset(seen), frozenset(items)
    )
