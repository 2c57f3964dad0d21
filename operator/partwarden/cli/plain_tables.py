"""Large plain tables with a column that says when, which ``partwarden import`` proposes to convert."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from psycopg import sql

from ..api.policy import Table
from ..api.types import Interval
from ..planner.keys import KeyType
from ..postgres.connection import Session, pinned, run
from ..status.details import human
from . import options

LARGE = 10 << 30
"""Bytes with TOAST and indexes from which on a table is proposed: few smaller ones are better off in partitions."""
MOST = 20
"""Tables that are proposed, the largest first."""
HUGE = 1 << 40
"""Bytes from which on days are proposed instead of months."""

# By the planner's page counts, which need no lock. Of several columns one that is filled by the clock and never NULL is
# most likely the one that says when a row came.
PLAIN = """
SELECT n.nspname AS schema, c.relname AS name, s.bytes, k.attname AS key
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT current_setting('block_size')::int8 * sum(greatest(relpages, 0))::int8 AS bytes FROM pg_class
  WHERE oid IN (c.oid, c.reltoastrelid) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid)) s
CROSS JOIN LATERAL (
  SELECT a.attname FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    AND format_type(a.atttypid, NULL) = ANY ({types})
  ORDER BY left(pg_get_expr(d.adbin, d.adrelid), 100) ~* '(now|current_timestamp|current_date|clock_timestamp)' DESC
             NULLS LAST, a.attnotnull DESC, a.attnum LIMIT 1) k
WHERE c.relkind = 'r' AND NOT c.relispartition AND c.relpersistence = 'p' AND s.bytes >= {large}
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent))
ORDER BY s.bytes DESC, 1, 2 LIMIT {most}
"""


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A plain table, the column of it that most likely says when, and its size in bytes."""

    table: Table
    key: str
    bytes: int

    @property
    def advice(self) -> str:
        """One line for people, with the command that shows how it would be converted."""
        interval = Interval.DAY if self.bytes >= HUGE else Interval.MONTH
        words = ["--table", options.spelled(self.table.schema_, self.table.name), "--key", self.key]
        command = f"partwarden convert --dsn … {shlex.join(words)} --interval {interval} --plan"
        return f"{self.table} is not partitioned, and has {human(self.bytes)}: {command}"


def large_tables(connection: Session) -> list[PlainTable]:
    """The largest first. Raises psycopg's errors."""
    types = [KeyType.DATE.value, KeyType.TIMESTAMP.value, KeyType.TIMESTAMPTZ.value]
    query = sql.SQL(PLAIN).format(types=types, large=LARGE, most=MOST)
    rows = run(connection, pinned("500ms", "30s"), query)[1]
    return [PlainTable(Table(schema_=row.schema, name=row.name), row.key, row.bytes) for row in rows]
