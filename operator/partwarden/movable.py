"""Whether rows of this DEFAULT partition can be moved at all, and what must be known of it for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Literal

from .actions import DrainIntoPartition
from .errors import InsufficientPrivilege, StatementRejected, TableChanged
from .findings import quoted
from .inventory import Parent, Partition

FACTS = SQL("""
SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE i.inhrelid = c.oid AND i.inhparent = {parent} AND pg_get_expr(c.relpartbound, 0) = 'DEFAULT'
                 AND c.oid = {default} AND c.relkind = 'r'),
       pg_has_role(c.relowner, 'USAGE'), row_security_active(c.oid), c.relhasrules,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
             ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT ARRAY[t.tgname::text, t.tgenabled::text] FROM pg_trigger t
             -- What keeps foreign keys is a trigger as well, and stays.
             WHERE t.tgrelid = c.oid AND t.tgtype & 8 <> 0 AND t.tgenabled <> 'D'
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
             ORDER BY 1),
       -- Indexes of EXCLUDE, and of keys WITHOUT OVERLAPS, are not taken over by ATTACH, but made twice.
       NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = {parent} AND x.indisexclusion)
FROM pg_class c WHERE c.relname = {name} AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
""")

PUBLISHED = SQL("""
SELECT p.pubname FROM pg_publication p
WHERE current_setting('wal_level') = 'logical' AND (p.pubinsert OR p.pubdelete)
  AND (p.puballtables
       OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_partition_ancestors({default}) a ON a.relid = r.prrelid
                  WHERE r.prpubid = p.oid){schemas})
ORDER BY 1
""")
SCHEMAS = SQL("""
       OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                  JOIN pg_partition_ancestors({default}) a ON a.relid = c.oid WHERE s.pnpubid = p.oid)""")
SCHEMAS_VERSION = 150000
"""From 15 on a publication may list schemas."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``columns`` are those that are written; ``all_columns`` has the generated ones, too."""

    columns: Sequence[str]
    all_columns: Sequence[str]
    triggers: Sequence[Sequence[str]]
    """The user's triggers that a DELETE fires, each with its ``tgenabled``."""
    indexes: bool
    """Whether the new table may be made with its indexes."""


def ask(parent: Parent, default: Partition) -> Composed:
    """The facts that `check` wants. DEFAULT must be locked against changes of them."""
    oids = {"parent": Literal(parent.oid), "default": Literal(default.oid)}
    return FACTS.format(**oids, schema=default.schema, name=default.name)


def ask_publications(default: Partition, version: int) -> Composed:
    """The names of publications that tell others of these rows. ``version``: the server's, as 180003."""
    oid = Literal(default.oid)
    return PUBLISHED.format(default=oid, schemas=SCHEMAS.format(default=oid) if version >= SCHEMAS_VERSION else SQL(""))


def check(
    default: Partition,
    action: DrainIntoPartition,
    user: str,
    facts: Sequence[Sequence[Any]],
    publications: Sequence[str],
) -> Shape:
    """Raises `TableChanged`, `InsufficientPrivilege` or `StatementRejected`. ``user``: the role that connects."""
    if not facts or not facts[0][0]:
        raise TableChanged(f"DEFAULT partition {default} was changed since it was looked at")
    _, owned, hidden, ruled, columns, all_columns, triggers, indexes = facts[0]
    subject = f"rows of DEFAULT partition {default} cannot be moved to {action}"
    if not owned:
        raise InsufficientPrivilege(f"{subject}: role {user!r} is neither its owner nor a member of that role")
    if hidden:
        raise InsufficientPrivilege(
            f"{subject}: its row security hides rows from role {user!r}: ALTER ROLE {quoted(user)} BYPASSRLS, or take "
            "FORCE away"
        )
    if ruled:
        raise StatementRejected(
            f"{subject}: it has rules, which would change what is done; drop them, or move the rows by hand"
        )
    if publications:
        # What is inserted before ATTACH is no partition's yet: subscribers would see the rows deleted only.
        raise StatementRejected(
            f"{subject}: publication {publications[0]!r} would tell subscribers only that they were deleted; "
            "move them by hand: delete them, make the partition, and insert them again"
        )
    return Shape(columns, all_columns, triggers, indexes)
