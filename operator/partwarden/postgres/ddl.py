"""Tables and partitions as DDL, and their comments as expressions.

https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-DESC-ATTACH-PARTITION
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from ..errors import StatementRejected
from ..planner.actions import Action, AttachDetached, CreateDefault, CreatePartition
from ..planner.inventory import Grant, Parent, PartitionTemplate
from ..planner.marker import LONGEST

# octet_length reads the length alone: of a comment that is too long, nothing is decompressed or transferred.
READ = """
(SELECT CASE WHEN octet_length(d.description) <= {longest} THEN d.description END FROM pg_description d
 WHERE d.objoid = {oid} AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0)
"""
LENGTH = """
coalesce((SELECT octet_length(d.description) FROM pg_description d
          WHERE d.objoid = {oid} AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0), 0)
"""

# Other texts of the catalog are as long as whoever made the table wanted. What is longer than this is cut in SQL, so
# that it is not transferred, and then not used: an expression that is cut is another one.
LONGEST_TEXT = 64 * 1024
LONGEST_BOUNDS = 1000
"""Characters. Bounds of the keys that are managed have a tenth of it; those of others are only shown."""
BOUNDS = f"left(pg_get_expr(c.relpartbound, 0), {LONGEST_BOUNDS})"
"""Bounds of the table ``c``, in PostgreSQL's words."""


def bounded(expression: str) -> str:
    """An expression of SQL: the text, cut where `check_text` refuses it."""
    return f"left({expression}, {LONGEST_TEXT + 1})"


def check_text(subject: str, text: str) -> str:
    """The text, if it is whole. Raises `StatementRejected`."""
    if len(text) > LONGEST_TEXT:
        raise StatementRejected(f"{subject} has more than {LONGEST_TEXT:,} characters, and no longer one is read")
    return text


def read(oid: sql.Composable) -> sql.Composed:
    """An expression: the comment of the table, NULL where there is none or it is longer than `LONGEST`."""
    return sql.SQL(READ).format(oid=oid, longest=LONGEST)


def length(oid: sql.Composable) -> sql.Composed:
    """An expression: how many bytes the comment has, 0 where there is none."""
    return sql.SQL(LENGTH).format(oid=oid)


def is_too_long(length: int) -> bool:
    """Whether a comment of so many bytes was not read."""
    return length > LONGEST


def check_room(table: object, comment: str | None) -> str | None:
    """The comment that is to be written, if it would be read again. Raises `StatementRejected`."""
    if comment is not None and is_too_long(len(comment.encode())):
        raise no_room(table)
    return comment


def no_room(table: object) -> StatementRejected:
    """Nothing is written into a comment that is too long, for what stands there is not known."""
    return StatementRejected(
        f"cannot write a mark into the comment of {table}: with it the comment has more than {LONGEST:,} bytes, and no "
        "longer one is read; shorten the comment"
    )


class Relation(Protocol):
    """A table, a sequence, or an action about one."""

    @property
    def schema(self) -> str: ...
    @property
    def name(self) -> str: ...


def relation(named: Relation) -> Identifier:
    """Its name with its schema."""
    return Identifier(named.schema, named.name)


def create_table(
    parent: Parent, action: Action, like: PartitionTemplate, indexes: bool = False, unlogged: bool = False
) -> Composed:
    """A table like the parent that is no partition yet.

    ATTACH makes the indexes, unless ``indexes``: equal ones it takes over. Those of an EXCLUDE constraint, or of a key
    WITHOUT OVERLAPS, it does not recognise where they exist, and makes them twice. From 17 on it refuses a table with
    an identity column of its own.
    """
    create = SQL("CREATE {}TABLE {} (LIKE {} INCLUDING ALL{} EXCLUDING IDENTITY)")
    kind, without = SQL("UNLOGGED " if unlogged else ""), SQL("" if indexes else " EXCLUDING INDEXES")
    return SQL(" ").join([create.format(kind, relation(action), relation(parent), without), *storage(like)])


def storage(like: PartitionTemplate) -> Iterator[Composed]:
    """What stands at the end of CREATE TABLE: how and where the rows are stored."""
    if like.access_method is not None:
        yield SQL("USING {}").format(Identifier(like.access_method))
    if like.options:
        options = (SQL("{}={}").format(Identifier(*name.split(".")), value) for name, value in like.options)
        yield SQL("WITH ({})").format(SQL(", ").join(options))
    if like.tablespace is not None:
        yield SQL("TABLESPACE {}").format(Identifier(like.tablespace))


def set_owner(parent: Parent, table: Relation) -> Composed:
    """The parent's owner owns the partition, too."""
    return SQL("ALTER TABLE {} OWNER TO {}").format(relation(table), Identifier(parent.owner))


def set_grants(parent: Parent, table: Relation, present: Iterable[Grant]) -> Iterator[Composed]:
    """What makes the new table's privileges those of the parent; nothing when they are already."""
    present = set(present)
    if present == set(parent.grants):
        return
    for grantee in sorted({each.grantee for each in present}, key=lambda name: name or ""):
        yield SQL("REVOKE ALL ON TABLE {} FROM {}").format(relation(table), _role(grantee))
    for grant in parent.grants:
        columns = SQL(" ({})").format(Identifier(grant.column)) if grant.column else SQL("")
        yield SQL("GRANT {}{} ON TABLE {} TO {}{}").format(
            SQL(grant.privilege),  # PostgreSQL's own word for it, from aclexplode
            columns,
            relation(table),
            _role(grant.grantee),
            SQL(" WITH GRANT OPTION" if grant.grantable else ""),
        )


def set_row_security(table: Relation, enabled: bool, forced: bool) -> Iterator[Composed]:
    """Whom the parent shows only some rows, the partition itself shows none: it has the grants, but not the policies.

    Who comes through the parent is judged by the parent's policies alone.
    """
    if enabled:
        yield SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(relation(table))
    if forced:
        yield SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(relation(table))


def attach(parent: Parent, action: CreatePartition | AttachDetached | CreateDefault) -> Composed:
    """The table becomes the partition for its range, or the DEFAULT partition."""
    if isinstance(action, CreateDefault):
        return SQL("ALTER TABLE {} ATTACH PARTITION {} DEFAULT").format(relation(parent), relation(action))
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        relation(parent), relation(action), *action.bounds
    )


def rows_in_default(
    parent: Parent, default: int, key: str, action: CreatePartition | AttachDetached, limit: int
) -> Composed:
    """How many rows of the DEFAULT partition with that OID belong in the range, counted up to ``limit``.

    Asked of the parent, whose owner need not have rights on its partitions; pruning leaves only DEFAULT to be read.
    """
    return SQL(
        "SELECT count(*) FROM (SELECT FROM {} WHERE {key} >= {} AND {key} < {} AND tableoid = {} LIMIT {}) AS rows"
    ).format(relation(parent), *action.bounds, default, limit, key=Identifier(key))


def comment(action: Action, text: str | None) -> Composed:
    """Sets the whole comment of that table; None takes it away."""
    return SQL("COMMENT ON TABLE {} IS {}").format(relation(action), text)


def detach(parent: Parent, action: Action, how: Literal["", "CONCURRENTLY", "FINALIZE"] = "") -> Composed:
    """The partition becomes a table of its own; see `partwarden.detaching` for what each form waits for."""
    return SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(relation(parent), relation(action), SQL(how))


def _role(name: str | None) -> sql.Composable:
    return SQL("PUBLIC") if name is None else Identifier(name)
