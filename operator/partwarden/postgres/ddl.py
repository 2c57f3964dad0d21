"""Tables and partitions as DDL: what LIKE and ATTACH give a new partition, and what it has beside that.

https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-DESC-ATTACH-PARTITION
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, LiteralString, Protocol

from psycopg import sql
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..errors import StatementRejected
from ..planner.actions import Action, AttachDetached, CreateDefault, CreatePartition
from ..planner.inventory import Grant, Parent, PartitionTemplate, RowPolicy
from ..planner.keys import Bounds
from ..planner.marker import LONGEST

# octet_length reads the length alone: of a comment that is too long, nothing is decompressed or transferred.
COMMENT = SQL("""(SELECT CASE WHEN octet_length(d.description) <= {} THEN d.description END FROM pg_description d
 WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0)""").format(LONGEST)
"""The comment of the table ``c``, NULL where there is none or it is longer than `LONGEST`."""
COMMENT_LENGTH = SQL("""coalesce((SELECT octet_length(d.description) FROM pg_description d
 WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0), 0)""")
"""How many bytes it has, 0 where there is none."""

# Other texts of the catalog are as long as the owner of the table wanted. What is longer than this is cut in SQL, so
# that it is not transferred, and then not used: an expression that is cut is another one.
LONGEST_TEXT = 64 * 1024
LONGEST_BOUNDS = 1000
"""Characters. Bounds of the keys that are managed have a tenth of it; those of others are only shown."""
BOUNDS = SQL("left(pg_get_expr(c.relpartbound, 0), {})").format(LONGEST_BOUNDS)
"""Bounds of the table ``c``, in PostgreSQL's words."""


def bounded(expression: LiteralString) -> Composed:
    """The text of that expression, cut where `check_text` refuses it."""
    return SQL("left({}, {})").format(SQL(expression), LONGEST_TEXT + 1)


def check_text(subject: str, text: str, way_out: str = "") -> str:
    """The text, if it is whole. Raises `StatementRejected`."""
    if len(text) > LONGEST_TEXT:
        words = f"{subject} has more than {LONGEST_TEXT:,} characters, and no longer one is read"
        raise StatementRejected(f"{words}; {way_out}" if way_out else words)
    return text


PARTITION_CONSTRAINT = SQL("SELECT left(pg_get_partition_constraintdef({}::oid), 65537)")
"""The bounds of the partition with that OID as a condition, in PostgreSQL's own text, for `check_text`."""


class Relation(Protocol):
    """A table, a sequence, or an action about one."""

    @property
    def schema(self) -> str: ...
    @property
    def name(self) -> str: ...


def relation(named: Relation) -> Identifier:
    """Its name with its schema."""
    return Identifier(named.schema, named.name)


def lock(table: Relation, mode: str) -> Composed:
    """Lock the table alone; ``mode`` as LOCK TABLE spells it."""
    return SQL("LOCK TABLE ONLY {} IN {} MODE").format(relation(table), SQL(mode))


def in_range(key: Identifier, bounds: Bounds) -> Composed:
    """That the key lies in the range."""
    return SQL("{key} >= {} AND {key} < {}").format(*bounds, key=key)


def count(source: Composable, limit: int) -> Composed:
    """How many rows there are, counted up to ``limit``. ``source``: what follows FROM."""
    return SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS rows").format(source, limit)


def create_table(
    parent: Relation, action: Relation, like: PartitionTemplate, indexes: bool = False, unlogged: bool = False
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
    """The parent's owner owns the table, too."""
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


def _role(name: str | None) -> Composable:
    return SQL("PUBLIC") if name is None else Identifier(name)


def set_row_security(table: Relation, enabled: bool, forced: bool) -> Iterator[Composed]:
    """Whom the parent shows some rows only, the partition itself shows none: it has the grants and not the policies."""
    if enabled:
        yield SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(relation(table))
    if forced:
        yield SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(relation(table))


def before_attach(like: PartitionTemplate, partition: Relation) -> Iterator[Composed]:
    """For the new table, before it is a partition."""
    table = relation(partition)
    for column in like.columns:
        alter = SQL("ALTER TABLE {} ALTER COLUMN {}").format(table, Identifier(column.name))
        if column.statistics is not None:
            yield SQL("{} SET STATISTICS {}").format(alter, column.statistics)
        if column.options:
            options = (SQL("{}={}").format(Identifier(name), value) for name, value in column.options)
            yield SQL("{} SET ({})").format(alter, SQL(", ").join(options))
    for policy in like.policies:
        yield _policy(table, policy)
    if identity := {"n": "NOTHING", "f": "FULL"}.get(like.replica_identity):
        yield SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, SQL(identity))


COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
"""``pg_policy.polcmd``."""


def _policy(table: Identifier, policy: RowPolicy) -> Composed:
    create = SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
        Identifier(policy.name),
        table,
        SQL("PERMISSIVE" if policy.permissive else "RESTRICTIVE"),
        SQL(COMMANDS[policy.command]),
        SQL(", ").join(map(_role, policy.roles)),
    )
    # PostgreSQL's own text of an expression that it holds, and deparsed with every name qualified.
    using = [] if policy.using is None else [SQL("USING ({})").format(SQL(policy.using))]
    check = [] if policy.check is None else [SQL("WITH CHECK ({})").format(SQL(policy.check))]
    return SQL(" ").join([create, *using, *check])


def attach(parent: Parent, action: CreatePartition | AttachDetached | CreateDefault) -> Composed:
    """The table becomes the partition for its range, or the DEFAULT partition."""
    alter = SQL("ALTER TABLE {} ATTACH PARTITION {}").format(relation(parent), relation(action))
    if isinstance(action, CreateDefault):
        return SQL("{} DEFAULT").format(alter)
    return SQL("{} FOR VALUES FROM ({}) TO ({})").format(alter, *action.bounds)


# The index has a name that PostgreSQL chose; it is found by the parent's index, whose part it is.
USING_INDEX = """
BEGIN
  EXECUTE (SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', x.indrelid::regclass, c.relname)
           FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid JOIN pg_class c ON c.oid = x.indexrelid
           WHERE i.inhparent = {} AND x.indrelid = {}::regclass);
END
"""


def after_attach(like: PartitionTemplate, partition: Relation) -> Iterator[Composed]:
    """For the partition, whose indexes ATTACH has made."""
    if like.identity_index is not None:
        body = SQL(USING_INDEX).format(like.identity_index, relation(partition).as_string())
        yield SQL("DO {}").format(sql.Literal(body.as_string()))


def rows_in_default(
    parent: Parent, default: int, key: str, action: CreatePartition | AttachDetached, limit: int
) -> Composed:
    """How many rows of the DEFAULT partition with that OID belong in the range, counted up to ``limit``.

    Asked of the parent, whose owner need not have rights on its partitions; pruning leaves only DEFAULT to be read.
    """
    source = SQL("{} WHERE {} AND tableoid = {}")
    return count(source.format(relation(parent), in_range(Identifier(key), action.bounds), default), limit)


def comment(action: Action, text: str | None) -> Composed:
    """Sets the whole comment of that table; None takes it away. Raises as `no_room`, if it would not be read again."""
    if text is not None and len(text.encode()) > LONGEST:
        raise no_room(action)
    return SQL("COMMENT ON TABLE {} IS {}").format(relation(action), text)


def no_room(action: Action) -> StatementRejected:
    """Nothing is written into a comment that is too long, for what stands there is not known."""
    return StatementRejected(
        f"cannot write a mark into the comment of {action.noun} {action}: with it the comment has more than "
        f"{LONGEST:,} bytes, and no longer one is read; shorten the comment"
    )


def detach(parent: Parent, action: Action, how: Literal["", "CONCURRENTLY", "FINALIZE"] = "") -> Composed:
    """The partition becomes a table of its own; see `postgres.detach` for what each form waits for."""
    return SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(relation(parent), relation(action), SQL(how))
