"""Leave out of a restored table what would run functions of other roles with the rights of a login that has more.

A domain and a generated column call functions, and the owner of the archived table chose them. Where its parent is
there, the table is loaded as the parent's owner, and they run with those rights. Where it is not, the login loads it: a
superuser, or a member of other roles, must lend its rights to no function but its own and those of superusers.

Which functions those are PostgreSQL's own dependencies say: of the types of an empty table, and of a view that selects
an expression. To make either calls none of them, while a table with the generated column may plan its expression.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Identifier

from ..planner.findings import quoted
from ..postgres.connection import Session, run, run_alone
from ..postgres.errors import message
from . import table_schema
from .manifest import Attribute
from .restored_table import TEXT, Loader, is_about_rows
from .table_schema import TableColumn

HAS_MORE = """
SELECT bool_or(r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
               OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid))
FROM pg_roles r WHERE r.rolname IN (current_user, session_user)
"""

# What a type is made from, the checks of domains, and of both the functions and operators. Arrays, composites and
# ranges are of their elements. ``begin``: column and object, to begin with.
CALLS = """
WITH RECURSIVE needed(name, classid, objid) AS (
  {begin}
  UNION
  SELECT n.name, x.classid, x.objid FROM needed n, LATERAL (
    SELECT d.refclassid, d.refobjid FROM pg_depend d
    WHERE d.classid = n.classid AND d.objid = n.objid AND d.deptype IN ('n', 'i')
      AND d.refclassid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass)
    UNION ALL SELECT 'pg_type'::regclass, p.part FROM pg_type t, LATERAL (
      SELECT t.typbasetype UNION ALL SELECT t.typelem
      UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0
      UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
      UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid) p(part)
    WHERE n.classid = 'pg_type'::regclass AND t.oid = n.objid AND p.part <> 0
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k
    WHERE n.classid = 'pg_type'::regclass AND k.contypid = n.objid
    UNION ALL SELECT 'pg_proc'::regclass, o.oprcode FROM pg_operator o
    WHERE n.classid = 'pg_operator'::regclass AND o.oid = n.objid) x(classid, objid)
)
SELECT DISTINCT ON (n.name) n.name, f.oid::regprocedure::text AS called, r.rolname AS owner
FROM needed n JOIN pg_proc f ON n.classid = 'pg_proc'::regclass AND f.oid = n.objid
JOIN pg_roles r ON r.oid = f.proowner WHERE NOT r.rolsuper AND r.rolname <> current_user ORDER BY n.name, f.oid
"""
OF_TYPES = """
SELECT a.attname, 'pg_type'::regclass::oid, a.atttypid FROM pg_attribute a
WHERE a.attrelid = {relation}::regclass AND a.attnum > 0
"""
OF_VIEW = """
SELECT ''::name, 'pg_rewrite'::regclass::oid, w.oid FROM pg_rewrite w WHERE w.ev_class = {relation}::regclass
"""


def lends_rights(connection: Session) -> bool:
    """Whether the role that is connected, or the login that became it, has rights that no function of another role
    should have. Such a function may say RESET ROLE."""
    (((more,),),) = run(connection, HAS_MORE)
    return bool(more)


def confine(loader: Loader) -> None:
    """Make the table be loaded without types and expressions that call functions of others, and note why. In the
    transaction that is to load it, with its settings. Raises psycopg's errors."""
    with loader.connection.transaction(force_rollback=True):
        calls = _of_types(loader, loader.wanted)
        typed = tuple(_with_base(loader, each) if each.name in calls else each for each in loader.wanted)
        if calls and (still := _of_types(loader, typed)):
            typed = tuple(_as_text(each) if each.name in still else each for each in typed)
        generated = [each for each in typed if each.expression is not None and each.name not in calls]
        found = {each.name: _of_expression(loader, each, typed) for each in generated}
    reasons = {**calls, **{name: why for name, why in found.items() if why is not None}}
    # What is generated and not stored has no values without its expression.
    wanted = (each for each in typed if each.name not in reasons or each.kind != "v")
    loader.wanted = tuple(replace(each, expression=None) if each.name in reasons else each for each in wanted)
    loader.reasons |= reasons
    loader.settled = frozenset(calls)


def _with_base(loader: Loader, column: TableColumn) -> TableColumn:
    """The column with what its domain is made from in the end, else of text."""
    base: Attribute | None = None
    archived = next(each.type for each in loader.manifest.columns if each.name == column.name)
    while (below := loader.types.base(archived)) is not None:
        base, archived = below, below.type
    found = loader.types.find(base) if base is not None else None
    return replace(_as_text(column), type=found or SQL(TEXT))


def _as_text(column: TableColumn) -> TableColumn:
    return TableColumn(column.name, SQL(TEXT), expression=column.expression, kind=column.kind)


def _of_types(loader: Loader, columns: Sequence[TableColumn]) -> Mapping[str, str]:
    """Column -> which function of others its type calls, or why no column can have it."""
    try:
        with loader.connection.transaction(force_rollback=True):
            plain = [replace(each, expression=None) for each in columns]
            run_alone(loader.connection, table_schema.create_table(loader.table, plain))
            return {row.name: _why(loader, row) for row in _ask(loader, OF_TYPES, loader.table)}
    except psycopg.Error as error:
        if not is_about_rows(error):
            raise
        if len(columns) == 1:
            return {columns[0].name: message(error)}
    return {name: why for each in columns for name, why in _of_types(loader, [each]).items()}


def _of_expression(loader: Loader, column: TableColumn, columns: Sequence[TableColumn]) -> str | None:
    """Which function of others the column's expression calls, or why it is none that can be used. ``columns``: of the
    table that it is of."""
    assert column.expression is not None
    view = Identifier(loader.schema, f"partwarden_{secrets.token_hex(8)}")
    others = [each for each in columns if each.expression is None]
    try:
        with loader.connection.transaction(force_rollback=True):
            run_alone(loader.connection, table_schema.create_table(loader.table, others))
            select = SQL("CREATE VIEW {} AS SELECT ({})::{} AS value FROM ONLY {}")
            run_alone(loader.connection, select.format(view, column.expression, column.type, loader.table))
            return next((_why(loader, row) for row in _ask(loader, OF_VIEW, view)), None)
    except psycopg.Error as error:
        if not is_about_rows(error):
            raise
        return message(error)


def _ask(loader: Loader, begin: LiteralString, relation: Identifier) -> list[Any]:
    """Rows of `CALLS`."""
    first = SQL(begin).format(relation=relation.as_string())
    return run(loader.connection, SQL(CALLS).format(begin=first))[0]


def _why(loader: Loader, row: Any) -> str:
    login = loader.connection.info.user
    return (
        f"it calls function {row.called} of role {row.owner!r}, which must not run with the rights of {login!r}: to "
        f"have it, restore as {quoted(row.owner)}, or as a role that is a member of no other and no superuser"
    )
