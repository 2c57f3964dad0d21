"""The way back of a conversion: the parent goes, and its first partition is the plain table that it was, OID and all.

Why no row is lost, doubled or out of sight. All is one transaction, under a lock that no session passes. The old table
is detached first: nothing that is dropped later can take it along. Rows of the other partitions, few, are moved into it
by a single statement, which deletes what it inserts; the parent is dropped only after PostgreSQL has found, in the same
transaction and under the same lock, that not one row is left in it, and never with CASCADE. Partitions in which an
older snapshot may see a row stay for its sake, see `conversion_remains`. Whatever fails, PostgreSQL undoes all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import NULL, SQL, Composable, Identifier

from ..errors import AnotherOperator, StatementFailed, StatementRejected, TableBusy, TableChanged, TableNotFound
from ..planner import marker
from ..planner.default_rows import count_of
from ..planner.inventory import Grant, Parent, Relation, RelationKind
from ..planner.marker import ConvertedMark
from . import catalog, conversion_remains, ddl, locks, self_references, split_leftovers
from . import conversion_definition as definition
from .brief_locks import lock_in_time
from .connection import Session, pinned, run
from .conversion_definition import rows_of, statements
from .conversion_finish import Role, finish, to_validate, write_mark
from .conversion_names import names_again
from .conversion_obstacles import fingerprint, require
from .conversion_swap import OTHER, UNDER_LOCK, again, changed, lock_around, move_sequences, persist, wanted
from .create import NEW_ACLS, grants
from .errors import message
from .locks import Mode, Want
from .settings import setting
from .transaction import LOCK_TIMEOUT_HEAVY, UNHEARD, advisory, translated

MOST_MOVED = 1000
"""Rows that are moved back, unless a caller says another limit: all sessions wait for it."""

ABOUT = """
SELECT c.oid, c.relkind = 'p' AS partitioned, pg_get_userbyid(c.relowner) AS owner, current_user AS login,
       {comment} AS comment, {length} AS length
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {schema} AND c.relname = {name}
"""
PARTITIONS = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, {comment} AS comment,
       i.inhdetachpending AS pending, c.relrowsecurity AND c.relforcerowsecurity AS forced,
       pg_get_userbyid(c.relowner) AS owner
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = {oid} ORDER BY c.oid
"""
COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
# Of a schema as a whole only from 15 on.
WHOLESALE = """
SELECT p.pubname FROM pg_publication p JOIN pg_namespace s ON s.nspname = {schema}
WHERE p.puballtables OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_publication'::regclass
  AND d.refobjid = p.oid AND d.classid = to_regclass('pg_catalog.pg_publication_namespace')
  AND EXISTS (SELECT FROM pg_depend n WHERE n.classid = d.classid AND n.objid = d.objid
              AND n.refclassid = 'pg_namespace'::regclass AND n.refobjid = s.oid)) ORDER BY 1
"""
# Those of the parent's are gone by then; what is left was made on the old table itself.
OWN_TRIGGERS = """
SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', {below}, tgname) AS off,
       format('ALTER TABLE %s ENABLE %s TRIGGER %I', {below},
              CASE tgenabled WHEN 'R' THEN 'REPLICA' WHEN 'A' THEN 'ALWAYS' ELSE '' END, tgname) AS back
FROM pg_trigger WHERE tgrelid = {legacy} AND NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D' ORDER BY tgname
"""
LACKING = """
SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT']) privilege
WHERE NOT has_table_privilege({owner}, {oid}::oid, privilege) ORDER BY 1
"""
MOVE = """
WITH moved AS (DELETE FROM {above} RETURNING {columns}),
inserted AS (INSERT INTO {below} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM moved RETURNING 1)
SELECT set_config('partwarden.deleted', (SELECT count(*) FROM moved)::text, true),
       set_config('partwarden.inserted', (SELECT count(*) FROM inserted)::text, true)
"""


@dataclass(frozen=True, slots=True)
class Converted:
    """The parent, its first partition that was the plain table, and the others."""

    parent: Parent
    legacy: Relation
    mark: ConvertedMark
    others: tuple[Relation, ...]
    forced: tuple[Relation, ...]
    """Those of the others whose policies hold for their owner, too."""
    comment: str | None
    """That of the parent."""
    role: Role


def undo(connection: Session, schema: str, table: str, deadline: float, *, limit: int = MOST_MOVED) -> int:
    """Make the table the plain one that it was before its conversion. Returns how many rows were moved back into it.

    ``deadline``: as for `conversion_swap.swap`; ``limit``: rows that may be moved. What was changed on
    the parent since, such as grants, triggers and policies, holds for the table then. Raises `StatementRejected` where
    more rows lie in other partitions, or one with a key that the old table holds already; else as
    `conversion_swap.swap`.
    """
    subject = f"cannot undo the conversion of {schema}.{table}"
    wants: list[Want] = []
    moved = 0

    def attempt() -> None:
        nonlocal moved
        found = _begin(connection, schema, table, subject)
        moved = _count(connection, found, limit, subject)
        wholesale = [each.pubname for each in rows_of(connection, WHOLESALE, schema=schema)[0]]
        if moved and wholesale:
            raise StatementRejected(
                f"{subject}: {count_of(moved)} lie in other partitions, and publication {wholesale[0]!r} publishes "
                "every table of its schema: subscribers would see them go under one name and come under another; "
                "change the publication, or delete those rows and insert them again afterwards"
            )
        work = list(_work(connection, found, wants, bool(wholesale)))
        # One that is taken later reads all rows as well. But it can change none that moved: PostgreSQL refuses that.
        if moved and (who := locks.wait_for_snapshots(connection, deadline)):
            raise TableBusy(f"{subject}: {who} has an older snapshot, by which it could not change rows that move")
        try:
            run(connection, *work)
        except pg.UniqueViolation as error:
            raise StatementRejected(
                f"{subject}: a row of another partition has a key that {found.legacy} holds as well, which was unique "
                f"before ({message(error)}); change or delete one of the two"
            ) from None
        except pg.InvalidForeignKey as error:
            raise StatementRejected(
                f"{subject}: a foreign key that was made since points to a key that the table will not have then "
                f"({message(error)}); drop it"
            ) from None
        except psycopg.Error as error:
            wrong = changed(error, subject)
            if moved and isinstance(wrong, StatementFailed):
                raise StatementFailed(
                    f"{wrong}; {count_of(moved)} of later partitions move back meanwhile: where those are too many for "
                    "the time, there is no way back but to delete some of them"
                ) from None
            raise wrong or error from None

    with translated(connection, subject):
        persist(connection, attempt, wants, subject, deadline)
    finish(connection, schema, table, deadline)
    return moved


def _begin(connection: Session, schema: str, table: str, subject: str) -> Converted:
    """Open the transaction, keep other DDL away, and read what is there."""
    about = SQL(ABOUT).format(schema=schema, name=table, comment=ddl.COMMENT, length=ddl.COMMENT_LENGTH)
    *_, rows = run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED", pinned(f"{UNHEARD}ms", "60s"), about)
    if not rows:
        raise TableNotFound(f"table {schema}.{table} does not exist")
    row = rows[0]
    if not row.partitioned:
        raise StatementRejected(f"{subject}: it is not partitioned; nothing is to be undone")
    role = Role(row.owner, row.login)
    parent = Parent(row.oid, schema, table, RelationKind.PARTITIONED, row.owner)
    ((free,),), *_, again_, partitions = run(
        connection,
        advisory(row.oid),
        *role.as_owner(),
        ddl.lock(parent, "SHARE UPDATE EXCLUSIVE"),
        about,
        SQL(PARTITIONS).format(oid=row.oid, comment=ddl.COMMENT),
    )
    if not free:
        raise AnotherOperator(f"table {parent} is being worked on by another session: its advisory lock is taken")
    if [each.oid for each in again_] != [row.oid]:
        raise TableChanged(f"table {parent} was dropped, renamed or made anew since it was read")
    legacy, mark = None, None
    others = []
    for each in partitions:
        one = _check_partition(parent, each, subject)
        found = marker.read_converted(each.comment, each.oid)
        if found is not None and found.parent == row.oid and not found.undone and legacy is None:
            legacy, mark = one, found
        else:
            others.append(one)
    if legacy is None or mark is None:
        raise StatementRejected(f"{subject}: none of its partitions bears the mark of a conversion of this table")
    if legacy.schema != schema:
        raise StatementRejected(f"{subject}: {_apart(legacy, 'schema', SQL('SET SCHEMA'), schema)}")
    run(connection, ddl.lock(legacy, "SHARE UPDATE EXCLUSIVE"))
    oids = {each.oid for each in partitions if each.forced}
    forced = tuple(each for each in others if each.oid in oids)
    return Converted(parent, legacy, mark, tuple(others), forced, again_[0].comment, role)


def _check_partition(parent: Parent, row: Any, subject: str) -> Relation:
    """The partition of that row of `PARTITIONS`. Raises `StatementRejected` where it is no longer as it was made."""
    partition = Relation(row.oid, row.schema, row.name)
    if row.kind != "r" or row.pending:
        what = "is being detached" if row.pending else "is no plain table"
        raise StatementRejected(f"{subject}: its partition {partition} {what}; detach it first")
    if row.owner != parent.owner:
        raise StatementRejected(f"{subject}: {_apart(partition, 'owner', SQL('OWNER TO'), parent.owner)}")
    return partition


def _apart(partition: Relation, what: str, to: SQL, name: str) -> str:
    """A partition that did not follow where the partitioned table was moved or given away, and the way out."""
    change = SQL("ALTER TABLE {} {} {}").format(ddl.relation(partition), to, Identifier(name)).as_string()
    return f"its partition {partition} has another {what} than the table; {change}"


def _count(connection: Session, found: Converted, limit: int, subject: str) -> int:
    """How many rows are to be moved back. Raises `StatementRejected`: more than ``limit``, or the table was split."""
    if not found.others and not found.mark.split:
        return 0
    # As the owner, for to plan a query calls functions of an index: it sees all rows, or there is an error.
    owner = Identifier(found.parent.owner)
    give = (SQL("GRANT SELECT ON {} TO {}").format(ddl.relation(each), owner) for each in found.others)
    show = (SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(ddl.relation(each)) for each in found.forced)
    counts = [ddl.count(SQL("ONLY {}").format(ddl.relation(each)), limit + 1) for each in found.others]
    run(connection, "SAVEPOINT uncounted", *found.role.as_login(give))
    run(connection, setting({"row_security": "off", "lock_timeout": f"{LOCK_TIMEOUT_HEAVY}ms"}), *show)
    rows = [int(count) for ((count,),) in run(connection, *counts)]
    # With it go rights and locks.
    run(connection, "ROLLBACK TO SAVEPOINT uncounted", "RELEASE SAVEPOINT uncounted")
    where = ", ".join(f"{count_of(n, n <= limit)} in {each}" for n, each in zip(rows, found.others, strict=True) if n)
    if found.mark.split:
        raise StatementRejected(
            f"{subject}: {found.legacy} was split, and its primary key has become that of the partitioned table; rows "
            f"lie in other partitions: {where or 'none'}; make a plain table by hand, and copy all rows into it"
        )
    if (many := sum(rows)) > limit:
        raise StatementRejected(
            f"{subject}: rows lie in other partitions than {found.legacy}: {where}; at most {limit:,} are moved back: "
            "raise moveBack (--move-back), all sessions wait for the time that it takes"
        )
    return many


def _work(connection: Session, found: Converted, wants: list[Want], wholesale: bool) -> Iterator[Composable]:
    """The one message: locks, the way back, and COMMIT. Fills ``wants``."""
    parent, legacy, role = found.parent, found.legacy, found.role
    above, below = ddl.relation(parent), ddl.relation(legacy)
    until = Relation(parent.oid, parent.schema, f"partwarden_{legacy.oid}")
    filter_ = SQL(definition.ROW_FILTER) if connection.info.server_version >= 150000 else NULL
    names = {"old": parent.oid, "new": above.as_string(), "was": above.as_string()}
    seen = run(connection, fingerprint(parent.oid))[0][0][0]
    views, referenced, publications, sequences, targets, rights = rows_of(
        connection,
        *(definition.VIEWS, definition.REFERENCED, definition.PUBLICATIONS, definition.SEQUENCES, definition.TARGETS),
        catalog.ACL,
        **{**names, "filter": filter_, "login": role.login, "parent": parent.oid},
    )
    acls = run(connection, SQL(NEW_ACLS).format(legacy.schema, [legacy.name]))[0]
    rules = statements(connection, definition.POLICIES, definition.POLICY_COMMENTS, definition.TRIGGERS, **names)
    drops = statements(connection, definition.DROP_TRIGGERS, definition.DROP_POLICIES, **names)
    # Its own policies are those of the parent, or older ones.
    own = statements(connection, definition.DROP_POLICIES, old=legacy.oid, new=below.as_string())
    own_keys = self_references.read(connection, parent.oid)
    flags = statements(connection, definition.SECURITY_FLAGS, **names)
    split = split_leftovers.undo(connection, legacy, found.others)
    last = list(names_again(connection, parent, legacy, found.mark))
    left = conversion_remains.used(connection, found.others)
    wants[:] = _wanted(connection, found, views, referenced, sequences)
    yield setting({"lock_timeout": f"{LOCK_TIMEOUT_HEAVY}ms", "statement_timeout": f"{UNDER_LOCK}ms"})
    yield from role.as_login(lock_around(views, referenced, targets, "ACCESS EXCLUSIVE"))
    # With its partitions, in the order in which every reader locks them.
    yield from (SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(above), lock_in_time())
    yield require(SQL("({}) = {}").format(fingerprint(parent.oid), seen), OTHER)
    yield from (*drops, *self_references.take(own_keys))
    yield from role.as_login(definition.text(each.take) for each in referenced)
    yield from (SQL("ALTER TABLE {} DETACH PARTITION {}").format(above, below), *split, *own)
    # Before rows move: subscribers have them, and know nothing of where they lie.
    yield from role.as_login(definition.text(each.take) for each in publications)
    yield from _see_all(found)
    yield from [] if wholesale else _move(connection, found)
    # Safe from here on: the old table is detached, and of the rest nothing but emptiness is left.
    yield require(SQL("NOT EXISTS (SELECT FROM {})").format(above), f"rows are left in other partitions than {legacy}")
    yield from conversion_remains.detach(above, left, [each for each in found.others if each not in left])
    yield SQL("ALTER TABLE {} RENAME TO {}").format(above, Identifier(until.name))
    yield SQL("ALTER TABLE {} RENAME TO {}").format(below, Identifier(parent.name))
    yield from move_sequences(sequences, until, parent)
    yield from role.as_login(again(views, (), publications))
    yield SQL("DROP TABLE {}").format(ddl.relation(until))
    yield from last
    # The names of keys are back, and with them what foreign keys point to.
    yield from (*role.as_login(again((), referenced, ())), *self_references.give(own_keys, parent))
    yield from (*rules, *flags)
    yield from ddl.set_grants(_with_grants(parent, rights), parent, grants(acls))
    yield from conversion_remains.inherit(above, left)
    unproven = to_validate(referenced, found.mark) + self_references.to_validate(own_keys, parent)
    mark = conversion_remains.mark(found.mark, unproven, left)
    yield SQL("COMMENT ON TABLE {} IS {}").format(above, write_mark(found.comment, legacy.oid, mark, str(parent)))
    yield SQL("COMMIT")


def _wanted(connection: Session, found: Converted, *joined: Sequence[Any]) -> Iterator[Want]:
    """The locks that exclude others."""
    parent = found.parent.oid
    yield from wanted(parent, *joined)
    yield from (Want(each.oid, Mode.ACCESS_EXCLUSIVE) for each in (found.legacy, *found.others))
    yield from locks.joined(connection, parent, Mode.ACCESS_EXCLUSIVE)


def _with_grants(parent: Parent, rights: Sequence[Any]) -> Parent:
    values = {field: getattr(parent, field) for field in ("oid", "schema", "name", "kind", "owner")}
    return Parent(**values, grants=tuple(Grant(*each) for each in rights))


def _see_all(found: Converted) -> Iterator[Composable]:
    """Policies hide no row from the owner, which may have taken rights from itself, and can always give them."""
    above, below = ddl.relation(found.parent), ddl.relation(found.legacy)
    yield setting({"row_security": "off"})
    yield SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(above)
    yield SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(below)
    yield SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(above)
    yield SQL("GRANT SELECT, DELETE ON {} TO {}").format(above, Identifier(found.parent.owner))


def _move(connection: Session, found: Converted) -> Iterator[Composable]:
    """Rows of the other partitions go into the old table. Neither triggers nor policies have anything to say of it."""
    above, below = ddl.relation(found.parent), ddl.relation(found.legacy)
    # An INSERT leaves no check of a deferred constraint behind, which ALTER TABLE would refuse.
    yield SQL("SET CONSTRAINTS ALL IMMEDIATE")
    (columns,) = rows_of(connection, COLUMNS, oid=found.parent.oid)[0]
    (lacking,) = rows_of(connection, LACKING, owner=found.parent.owner, oid=found.legacy.oid)
    owner, rights = Identifier(found.parent.owner), SQL(", ").join(SQL(each.privilege) for each in lacking)
    if lacking:
        yield SQL("GRANT {} ON {} TO {}").format(rights, below, owner)
    # One that returns NULL would keep a row out that is deleted.
    (triggers,) = rows_of(connection, OWN_TRIGGERS, legacy=found.legacy.oid, below=below.as_string())
    yield from (definition.text(each.off) for each in triggers)
    for other in found.others:
        # The same of one that keeps a row from being deleted: such a partition is dropped afterwards.
        (own,) = rows_of(connection, OWN_TRIGGERS, legacy=other.oid, below=ddl.relation(other).as_string())
        yield from (definition.text(each.off) for each in own)
    # Safe: one statement deletes what it inserts, as many rows as it inserts, and one that is left by it makes the next
    # statement fail.
    yield SQL(MOVE).format(above=above, below=below, columns=definition.text(columns[0]))
    same = SQL("current_setting('partwarden.deleted') = current_setting('partwarden.inserted')")
    yield require(same.format(), f"rows that were deleted were not inserted into {found.legacy}")
    yield from (definition.text(each.back) for each in triggers)
    if lacking:
        yield SQL("REVOKE {} ON {} FROM {}").format(rights, below, owner)
