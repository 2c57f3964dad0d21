"""What a conversion remembers in the comment of its table, and what is left to do after its one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from psycopg.sql import SQL, Composable, Identifier

from ..errors import StatementRejected, TableChanged
from ..planner import marker
from ..planner.inventory import Relation
from ..planner.marker import ConvertedMark
from . import ddl, locks, self_references
from .connection import Session, pinned, run
from .conversion_definition import rows_of
from .conversion_remains import drop_children
from .transaction import READ_ALL_LIMIT, READ_ALL_TIMEOUT, UNHEARD, become, translated, undone

NAMED = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'r'
"""
CONSTRAINT = """
SELECT pg_get_userbyid(o.relowner) AS owner, current_user AS login
FROM pg_constraint k JOIN pg_class o ON o.oid = k.conrelid
JOIN pg_namespace n ON n.oid = o.relnamespace
WHERE k.conname = {name} AND o.relname = {table} AND n.nspname = {schema} AND k.contype = 'f' AND NOT k.convalidated
  AND k.confrelid = ANY ({to}::oid[])
"""


@dataclass(frozen=True, slots=True)
class Role:
    """As whom statements run: ``owner`` for all of the table, ``login`` for what may be another role's."""

    owner: str
    login: str

    def as_owner(self) -> list[Composable]:
        """Functions of the table run with its owner's rights only, see `transaction.as_owner`."""
        return [become(self.owner)] if self.owner != self.login else []

    def as_login(self, statements: Iterable[Composable]) -> list[Composable]:
        """The statements, which call no function of the table, as the connected role; then the owner again."""
        found = list(statements)
        return [become(self.login), *found, become(self.owner)] if found and self.owner != self.login else found


def to_validate(referenced: Sequence[Any], mark: ConvertedMark | None) -> tuple[tuple[str, str, str], ...]:
    """Of the foreign keys of other tables those that are valid, or were before an interrupted ``mark`` was written."""
    left = () if mark is None else mark.validate
    keys = ((each, (each.schema, each.table, each.name)) for each in referenced)
    return tuple(key for each, key in keys if each.valid or key in left)


def write_mark(comment: str | None, oid: int, mark: ConvertedMark | None, table: str) -> str | None:
    """The comment with the mark. Raises `StatementRejected` where there is no room for it."""
    try:
        text = marker.write_converted(comment, oid, mark)
    except ValueError:
        text = None if mark is None else "x" * (marker.LONGEST + 1)
    if text is not None and len(text.encode()) > marker.LONGEST:
        raise StatementRejected(
            f"cannot write a mark into the comment of table {table}: there is no room; shorten the comment, or the "
            "names of keys"
        )
    return text


def finish(connection: Session, schema: str, name: str, deadline: float) -> None:
    """Validate the foreign keys that a swap, or its way back, made again, drop what the latter has left of partitions,
    and take that off the table's mark.

    ``name``: the table that bears the mark. Readers and writers go on meanwhile; it may be done again at any time, and
    does nothing where nothing is left. Raises as `swap`, and as `conversion_remains.drop_children`.
    """
    subject = f"cannot validate the foreign keys to {schema}.{name}"
    with translated(connection, subject):
        oid, mark, _ = read_mark(connection, schema, name)
        if mark is None or not (mark.validate or mark.undone):
            return
        # Of a table that was made plain again the parent's OID may be another's by now.
        to = [oid] if mark.undone else [mark.parent]
        for key in mark.validate:
            locks.retry_locks(
                connection, partial(_validate, connection, key, to), tuple, subject, deadline, check_first=False
            )
        plain = Relation(oid, schema, name)
        if mark.undone:
            drop_children(connection, plain, mark.left, deadline)
        else:
            self_references.adopt(connection, plain, mark, subject, deadline)
        with undone(connection):
            run(connection, "BEGIN", pinned(f"{UNHEARD}ms", "60s"), ddl.lock(plain, "SHARE UPDATE EXCLUSIVE"))
            _, mark, comment = read_mark(connection, schema, name)
            left = None if mark is None or mark.undone else replace(mark, validate=())
            text = write_mark(comment, oid, left, str(plain))
            run(connection, SQL("COMMENT ON TABLE {} IS {}").format(ddl.relation(plain), text), "COMMIT")


def read_mark(connection: Session, schema: str, name: str) -> tuple[int, ConvertedMark | None, str | None]:
    """OID, mark and comment of that table. Raises `TableChanged` where there is none."""
    query = SQL("SELECT c.oid, {comment} AS comment").format(comment=ddl.COMMENT) + SQL(NAMED).format(
        schema=schema, name=name
    )
    for row in run(connection, pinned("500ms", "10s"), query)[1]:
        return row.oid, marker.read_converted(row.comment, row.oid), row.comment
    raise TableChanged(f"table {schema}.{name} was dropped or renamed since it was read")


def _validate(connection: Session, key: tuple[str, str, str], to: list[int]) -> None:
    """Only of a key that points to one of these tables: the names were read from a comment."""
    schema, table, name = key
    (rows,) = rows_of(connection, CONSTRAINT, schema=schema, table=table, name=name, to=to)
    for row in rows:
        validate = SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(Identifier(schema, table), Identifier(name))
        with connection.patient(READ_ALL_LIMIT):
            role = Role(row.owner, row.login).as_owner()
            run(connection, "BEGIN", pinned(f"{UNHEARD}ms", READ_ALL_TIMEOUT), *role, validate, "COMMIT")
