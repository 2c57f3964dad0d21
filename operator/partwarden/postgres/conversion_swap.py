"""Give a plain table a partitioned parent with its name: the one transaction of a conversion.

Why no row is lost, doubled or out of sight. The rows stay where they are: the table is renamed and attached, and keeps
its OID, its file and its primary key. A session that comes meanwhile waits at the table, or at a view above it, before
it knows what bears the name, and finds the parent once it may go on; an older snapshot sees the same rows through the
parent. Whatever fails, on either side, PostgreSQL undoes all of it, and the table is the plain one that it was.

Why others wait for moments only. What takes its time is done before (see `conversion_parent`); the lock is asked for
during 50 ms, and all that is done under it is one message to the server that ends with COMMIT, so the way to the server
does not count, nor does the disk, which has it before `swap` returns. ATTACH reads no row, for the CHECK that was
validated before says that all lie in the range. A primary key that becomes wider is not built anew: the plain table
keeps its own, and the parent's is given the index that was built beforehand, which PostgreSQL allows after ATTACH (as
pg_dump does it), and not before.
https://www.postgresql.org/docs/current/sql-alterindex.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg.sql import NULL, SQL, Composable, Composed, Identifier

from ..errors import AnotherOperator, PartwardenError, StatementFailed, TableChanged
from ..planner.calendar import Range
from ..planner.conversion import Conversion
from ..planner.inventory import KeyPart, Relation
from ..planner.keys import TYPES, Codec
from ..planner.marker import ConvertedMark
from . import conversion_definition as definition
from . import conversion_obstacles, ddl, locks, self_references
from .brief_locks import UNFLUSHED, flush, lock_in_time
from .connection import Session, pinned, run
from .conversion_definition import rows_of, statements
from .conversion_finish import Role, finish, to_validate, write_mark
from .conversion_obstacles import CHANGED, check_obstacles, fingerprint, require
from .conversion_parent import Ready, identify, prepare
from .errors import message
from .locks import Mode, Want
from .settings import setting
from .table_state import holding_to
from .transaction import LOCK_TIMEOUT_HEAVY, UNHEARD, advisory, translated, undo

UNDER_LOCK = 1000
"""Milliseconds that one statement may take under the lock: more would be a scan, which no step of the swap needs."""
OTHER = "grants, or what depends on it, changed since the table was read"
LOGIN = """
SELECT pg_get_userbyid(c.relowner) AS owner, current_user AS login, format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = {key} AND a.attnum > 0
WHERE c.oid = {oid} AND n.nspname = {schema} AND c.relname = {table}
"""
INDEX = """
SELECT x.indisvalid AND x.indisunique AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL AS usable,
       ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY u(number, place)
             JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.number
             WHERE u.place <= x.indnkeyatts ORDER BY u.place) AS columns
FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid WHERE x.indrelid = {oid} AND c.relname = {index}
"""
PAIRED = """
SELECT NOT EXISTS (SELECT FROM pg_index WHERE indrelid = {parent} AND NOT indisvalid)
  AND (SELECT count(*) FROM pg_index WHERE indrelid = {oid}) = {many}
  AND NOT EXISTS (SELECT FROM unnest({parents}::name[], {children}::name[]) pair (parent, child)
                  WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
                                    JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_index x ON x.indexrelid = c.oid
                                    WHERE p.relname = pair.parent AND c.relname = pair.child AND x.indrelid = {oid}))
"""
"""Whether each of the parent's indexes is valid and has that of the plain table, and PostgreSQL has built no other."""


def swap(connection: Session, conversion: Conversion, deadline: float) -> None:
    """Make the table a partition of a new parent with its name. ``deadline``, of `time.monotonic`: until then the locks
    are tried for.

    The CHECK must have been validated, and the wider indexes built. Foreign keys of other tables that had to be made
    again are validated before it returns; where it is interrupted there, `finish` does it. Raises `TableBusy` where the
    locks are not acquired, `TableChanged` where something is not as it was planned, `StatementRejected` where something
    forbids it, else as `create.create`; the table is unchanged then.
    """
    subject = f"cannot convert {conversion.schema}.{conversion.table}"
    wants: list[Want] = [Want(conversion.oid, Mode.ACCESS_EXCLUSIVE)]

    def attempt() -> None:
        role, seen = _begin(connection, conversion)
        work = list(_work(connection, conversion, prepare(connection, conversion), role, seen, wants))
        try:
            run(connection, *work)
        except psycopg.Error as error:
            raise changed(error, subject) or error from None

    with translated(connection, subject):
        persist(connection, attempt, wants, subject, deadline)
        flush(connection)
    finish(connection, conversion.schema, conversion.legacy, deadline)


def persist(connection: Session, attempt: Callable[[], None], wants: list[Want], subject: str, deadline: float) -> None:
    """`locks.retry_locks`, and all of it once more where a statement took too long: a busy server may stall."""
    try:
        locks.retry_locks(connection, attempt, lambda: wants, subject, deadline)
    except StatementFailed:
        undo(connection)
        locks.retry_locks(connection, attempt, lambda: wants, subject, deadline)


def changed(error: psycopg.Error, subject: str) -> PartwardenError | None:
    """The error of a condition that does not hold, or of a time limit under the lock; None for any other."""
    if error.sqlstate == CHANGED:
        return TableChanged(f"{subject}: {message(error)}")
    if isinstance(error, psycopg.errors.QueryCanceled):
        return StatementFailed(
            f"{subject}: a statement took longer than {UNDER_LOCK} ms under the lock, and all was undone "
            f"({message(error)}); where the server is not busy, find out what PostgreSQL had to read"
        )
    return None


def _begin(connection: Session, conversion: Conversion) -> tuple[Role, str]:
    """Open the transaction, and see that all is as planned. Returns the `fingerprint` of what no lock keeps as it is,
    from before anything of it is read. Raises `TableChanged`, and others.
    """
    table = f"table {conversion.schema}.{conversion.table}"
    about = SQL(LOGIN).format(key=conversion.key, oid=conversion.oid, schema=conversion.schema, table=conversion.table)
    *_, ((free,),), rows = run(
        connection,
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        pinned(f"{UNHEARD}ms", "60s"),
        advisory(conversion.oid),
        about,
    )
    if not free:
        raise AnotherOperator(f"{table} is being worked on by another session: its advisory lock is taken")
    if not rows or rows[0].type is None:
        raise TableChanged(f"{table} was dropped, renamed or made anew since it was read")
    role = Role(rows[0].owner, rows[0].login)
    plain = Relation(conversion.oid, conversion.schema, conversion.table)
    lock = ddl.lock(plain, "SHARE UPDATE EXCLUSIVE")
    *_, rows, ((seen,),) = run(connection, *role.as_owner(), lock, about, fingerprint(conversion.oid))
    if not rows:
        raise TableChanged(f"{table} was dropped, renamed or made anew since it was read")
    check_obstacles(conversion, run(connection, *conversion_obstacles.ask(conversion)))
    _check_prepared(connection, conversion, KeyPart(conversion.key, rows[0].type))
    return role, seen


def _check_prepared(connection: Session, conversion: Conversion, key: KeyPart) -> None:
    """Whether the CHECK and the wider indexes are what they must be. Raises `TableChanged`."""
    table = f"table {conversion.schema}.{conversion.table}"
    for each in conversion.widened:
        (rows,) = rows_of(connection, INDEX, oid=conversion.oid, index=each.index)
        if not rows or not rows[0].usable or tuple(rows[0].columns) != each.columns:
            raise TableChanged(f"index {each.index} of {table} is not the valid unique index that was planned")
    for codec in filter(None, (Codec.find(key.type, encoding) for encoding in TYPES)):
        held = Range(*(codec.moment(each) for each in (conversion.lower, conversion.upper)))
        if any(
            each.name == conversion.check and each.validated
            for each in holding_to(connection, conversion.oid, key, held)
        ):
            return
    raise TableChanged(f"{table} has no valid constraint {conversion.check} that holds its rows to the planned range")


def _work(
    connection: Session, conversion: Conversion, ready: Ready, role: Role, seen: str, wants: list[Want]
) -> Iterator[Composable]:
    """The one message: locks, the check that all is as it was read, the swap, and COMMIT. Fills ``wants``."""
    oid = conversion.oid
    plain = Relation(oid, conversion.schema, conversion.table)
    partition = Relation(oid, conversion.schema, conversion.legacy)
    old, legacy = ddl.relation(plain), ddl.relation(partition)
    name, was = old.as_string(), legacy.as_string()
    filter_ = SQL(definition.ROW_FILTER) if connection.info.server_version >= 150000 else NULL
    views, referenced, publications, sequences, targets = rows_of(
        connection,
        *(definition.VIEWS, definition.REFERENCED, definition.PUBLICATIONS, definition.SEQUENCES, definition.TARGETS),
        **{"old": oid, "new": name, "was": was, "filter": filter_, "login": role.login},
    )
    drops = statements(connection, definition.DROP_TRIGGERS, old=oid, new=name)
    rules = statements(
        connection, definition.POLICIES, definition.POLICY_COMMENTS, definition.TRIGGERS, old=oid, new=name
    )
    references = statements(connection, definition.REFERENCES, old=oid, new=name)
    own = self_references.read(connection, oid)
    wants[:] = wanted(oid, views, referenced, sequences)
    wants += locks.joined(connection, oid, Mode.SHARE_ROW_EXCLUSIVE)
    limits = {"lock_timeout": f"{LOCK_TIMEOUT_HEAVY}ms", "statement_timeout": f"{UNDER_LOCK}ms"}
    yield setting(limits | UNFLUSHED)
    yield from role.as_login(lock_around(views, referenced, targets, "SHARE ROW EXCLUSIVE"))
    yield ddl.lock(plain, "ACCESS EXCLUSIVE")
    yield lock_in_time()
    yield require(SQL("({}) = {}").format(fingerprint(oid), seen), OTHER)
    yield from (*drops, *self_references.take(own))
    yield from role.as_login(definition.text(each.take) for each in referenced)
    yield SQL("ALTER TABLE {} RENAME TO {}").format(old, Identifier(conversion.legacy))
    yield SQL("ALTER TABLE {} RENAME TO {}").format(ready.name, Identifier(conversion.table))
    yield from move_sequences(sequences, partition, plain)
    yield from rules
    yield from references
    yield from _attach(conversion, ready, old, legacy)
    yield from self_references.give(own, partition)
    for each in conversion.ahead if own else ():
        yield from self_references.give(own, Relation(0, conversion.schema, each.name), empty=True)
    yield from role.as_login(
        [*(definition.text(each.take) for each in publications), *again(views, referenced, publications)]
    )
    mark = ConvertedMark(
        oid,
        ready.oid,
        tuple((each.constraint, each.index) for each in conversion.widened),
        ready.nullable,
        (*to_validate(referenced, ready.mark), *self_references.to_validate(own, partition)),
    )
    yield SQL("COMMENT ON TABLE {} IS {}").format(legacy, write_mark(ready.comment, oid, mark, conversion.table))
    yield require(_paired(conversion, ready), "an index of the table is not taken over by the parent as it is")
    yield SQL("COMMIT")


def _paired(conversion: Conversion, ready: Ready) -> Composed:
    """Whether each index of the parent has the one of the table that it is to have, and there is no other."""
    pairs = [(each.name, each.widened.index if each.widened else each.renamed) for each in ready.indexes]
    return SQL(PAIRED).format(
        parent=ready.oid,
        oid=conversion.oid,
        many=len(ready.indexes) + len(conversion.widened),
        parents=[parent for parent, _ in pairs],
        children=[child for _, child in pairs],
    )


def wanted(oid: int, views: Sequence[Any], referenced: Sequence[Any], sequences: Sequence[Any]) -> list[Want]:
    """The locks that exclude others from what they use."""
    others = [*views, *referenced, *(each for each in sequences if each.identity)]
    return [Want(each, Mode.ACCESS_EXCLUSIVE) for each in dict.fromkeys([oid, *(each.oid for each in others)])]


def lock_around(
    views: Sequence[Any], referenced: Sequence[Any], targets: Sequence[Any], mode: LiteralString
) -> Iterator[Composable]:
    """Lock tables that foreign keys join with it (``mode``: those that it points to), then views above it: before the
    table, as their readers do.

    A session that has passed a view would else wait at the table that the view meant before. LOCK TABLE of a view would
    lock all tables below it; giving it to the owner whom it has locks it alone, and changes nothing.
    """
    for each in {each.oid: each for each in referenced}.values():
        yield SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(Identifier(each.schema, each.table))
        yield lock_in_time()
    for each in targets:
        yield SQL("LOCK TABLE ONLY {} IN {} MODE").format(Identifier(each.schema, each.table), SQL(mode))
        yield lock_in_time()
    for each in {each.oid: each for each in views}.values():
        yield SQL("ALTER VIEW {} OWNER TO {}").format(Identifier(each.schema, each.name), Identifier(each.owner))
        yield lock_in_time()


def move_sequences(sequences: Sequence[Any], source: Relation, target: Relation) -> Iterator[Composable]:
    """Sequences of ``source`` go on at ``target``: owned ones move, those of identity columns are made again.

    To rename the old one of an identity column locks it against every other session: no value is given out twice.
    """
    for each in sequences:
        name, column = Identifier(each.schema, each.name), Identifier(each.column)
        if not each.identity:
            yield SQL("ALTER SEQUENCE {} OWNED BY {}").format(name, Identifier(target.schema, target.name, each.column))
            continue
        until = f"partwarden_{each.oid}"
        yield SQL("ALTER SEQUENCE {} RENAME TO {}").format(name, Identifier(until))
        add = SQL("ALTER TABLE {} ALTER COLUMN {} ADD {}")
        yield add.format(ddl.relation(target), column, definition.text(each.generated))
        value = SQL("SELECT pg_catalog.setval({}::regclass, last_value, is_called) FROM {}")
        yield value.format(name.as_string(), Identifier(each.schema, until))
        # Safe: the value that it stands at has just been taken over, under a lock that no nextval passes.
        yield SQL("ALTER TABLE {} ALTER COLUMN {} DROP IDENTITY").format(ddl.relation(source), column)
        if each.granted:
            yield SQL("REVOKE ALL ON SEQUENCE {} FROM {}").format(name, Identifier(each.owner))
            yield from (definition.text(grant) for grant in each.grants)
        if each.comment is not None:
            yield SQL("COMMENT ON SEQUENCE {} IS {}").format(name, each.comment)


def _attach(conversion: Conversion, ready: Ready, parent: Identifier, legacy: Identifier) -> Iterator[Composable]:
    """The plain table becomes a partition; what makes that quick is in place before, and goes away after it."""
    if ready.nullable:
        yield SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(legacy, Identifier(conversion.key))
    for each in ready.indexes:
        if each.widened:
            unique = "ALTER TABLE {} ADD CONSTRAINT {} UNIQUE USING INDEX {}" + each.deferrable
            index = Identifier(each.widened.index)
            yield SQL(unique).format(legacy, index, index)
    attach = SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
    yield attach.format(parent, legacy, conversion.lower, conversion.upper)
    if ready.wider and ready.wider.widened:
        schema, name = conversion.schema, ready.wider.name
        key = SQL("ALTER TABLE ONLY {} ADD CONSTRAINT {} PRIMARY KEY {}")
        columns = definition.text(f"{ready.wider.columns}{ready.wider.deferrable}")
        yield setting({"default_tablespace": ready.wider.tablespace})
        yield key.format(parent, Identifier(name), columns)
        for child in (Identifier(schema, ready.wider.widened.index), *ready.primary):
            yield SQL("ALTER INDEX {} ATTACH PARTITION {}").format(Identifier(schema, name), child)
        if ready.wider.identifies:
            yield identify(parent, ready.wider)
        yield from ready.wider.comments
    # The bounds say now what the CHECK said.
    yield SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(legacy, Identifier(conversion.check))


def again(views: Sequence[Any], referenced: Sequence[Any], publications: Sequence[Any]) -> Iterator[Composable]:
    """Views, foreign keys and publications speak of the table that has the name by now."""
    for each in views:
        yield definition.text(each.statement)
    for each in referenced:
        yield definition.text(each.give)
        if each.commented:
            yield definition.text(each.comment)
    for each in publications:
        yield definition.text(each.give)
