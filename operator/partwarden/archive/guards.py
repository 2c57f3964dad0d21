"""What an event trigger of the database may put on a table while it is made, and what keeps rows out or changes them.

Row triggers, and row security that is forced upon the owner. They are the database's, and stay on the table; the rows
of an archive are loaded, compared and examined without them.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from ..postgres.connection import Session, run

TRIGGERS = """
SELECT tgname AS trigger, tgenabled::text AS enabled FROM pg_trigger
WHERE tgrelid = {table}::regclass AND NOT tgisinternal AND tgenabled <> 'D' ORDER BY tgname
"""
FORCED = "SELECT relforcerowsecurity AS forced FROM pg_class WHERE oid = {table}::regclass AND relrowsecurity"
ENABLE = {"O": "ENABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}
"""By ``pg_trigger.tgenabled``."""


@dataclass(frozen=True, slots=True)
class Guards:
    """``off``: the statements that take them off the table; ``on``: those that put them back."""

    off: tuple[Composed, ...] = ()
    on: tuple[Composed, ...] = ()


def find(connection: Session, table: Identifier) -> Guards:
    """Those of the table, which the caller's transaction has made. Raises psycopg's errors."""
    off, on, name = [], [], table.as_string()

    def alter(before: str, then: str, what: sql.Composable) -> None:
        off.append(SQL("ALTER TABLE {} {} {}").format(table, SQL(before), what))
        on.append(SQL("ALTER TABLE {} {} {}").format(table, SQL(then), what))

    triggers, forced = run(connection, *(SQL(each).format(table=name) for each in (TRIGGERS, FORCED)))
    for each in triggers:
        alter("DISABLE TRIGGER", ENABLE[each.enabled], Identifier(each.trigger))
    if any(each.forced for each in forced):
        alter("NO FORCE", "FORCE", SQL("ROW LEVEL SECURITY"))
    return Guards(tuple(off), tuple(on))
