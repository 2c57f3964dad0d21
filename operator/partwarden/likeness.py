"""What makes a new partition like its siblings -> SQL, beside what LIKE and ATTACH do."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from .actions import Action
from .inventory import Likeness, RowPolicy

COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
"""``pg_policy.polcmd``."""
IDENTITIES = {"n": "NOTHING", "f": "FULL"}

# The index has a name that PostgreSQL chose; it is found by the parent's index, whose part it is.
USING_INDEX = """
BEGIN
  EXECUTE (SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', x.indrelid::regclass, c.relname)
           FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid JOIN pg_class c ON c.oid = x.indexrelid
           WHERE i.inhparent = {} AND x.indrelid = {}::regclass);
END
"""


def before_attach(like: Likeness, action: Action) -> Iterator[Composed]:
    """For the new table, before it is anybody's partition."""
    table = Identifier(action.schema, action.name)
    for column in like.columns:
        alter = SQL("ALTER TABLE {} ALTER COLUMN {}").format(table, Identifier(column.name))
        if column.statistics is not None:
            yield SQL("{} SET STATISTICS {}").format(alter, column.statistics)
        if column.options:
            options = (SQL("{}={}").format(Identifier(name), value) for name, value in column.options)
            yield SQL("{} SET ({})").format(alter, SQL(", ").join(options))
    for policy in like.policies:
        yield _policy(table, policy)
    if like.replica_identity in IDENTITIES:
        yield SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, SQL(IDENTITIES[like.replica_identity]))


def after_attach(like: Likeness, action: Action) -> Iterator[Composed]:
    """For the partition, whose indexes ATTACH has made."""
    if like.identity_index is not None:
        table = Literal(Identifier(action.schema, action.name).as_string())
        body = SQL(USING_INDEX).format(like.identity_index, table).as_string()
        yield SQL("DO {}").format(Literal(body))


def _policy(table: Identifier, policy: RowPolicy) -> Composed:
    parts: list[Composable] = [
        SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
            Identifier(policy.name),
            table,
            SQL("PERMISSIVE" if policy.permissive else "RESTRICTIVE"),
            SQL(COMMANDS[policy.command]),
            SQL(", ").join(SQL("PUBLIC") if role is None else Identifier(role) for role in policy.roles),
        )
    ]
    # PostgreSQL's own text of an expression that it holds, and deparsed with every name qualified.
    if policy.using is not None:
        parts.append(SQL("USING ({})").format(_text(policy.using)))
    if policy.check is not None:
        parts.append(SQL("WITH CHECK ({})").format(_text(policy.check)))
    return SQL(" ").join(parts)


def _text(expression: str) -> Composable:
    return SQL(expression)
