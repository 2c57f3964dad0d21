"""The statements that make a table have what another one has, read from the catalog of that other one.

Of a conversion the new parent takes over what the plain table has; of its way back the table what the parent has. All
text here is PostgreSQL's own, of its own catalog, with every name qualified: it is to be read in a transaction that has
pinned its settings. What names the table itself (triggers, policies) is right once the names have been exchanged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from ..errors import StatementRejected
from ..planner.conversion import WidenedKey
from .connection import run
from .ddl import LONGEST_TEXT

LONGEST_NAME = 63

# For the new parent while it has another name, {new}. {old} is the OID of the plain table.
COLUMNS = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I %s', {new}, a.attname, s.setting)
FROM pg_attribute a, LATERAL (VALUES
  ('SET STATISTICS ' || nullif(a.attstattarget, -1)),
  ((SELECT format('SET (%s)', string_agg(format('%I=%L', option_name, option_value), ', '))
    FROM pg_options_to_table(a.attoptions) HAVING count(*) > 0))) s (setting)
WHERE a.attrelid = {old} AND a.attnum > 0 AND NOT a.attisdropped AND s.setting IS NOT NULL ORDER BY a.attnum
"""
CHECKS = """
SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', {new}, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k WHERE k.conrelid = {old} AND k.contype = 'c' AND k.conname <> {check} ORDER BY k.conname
"""
STATISTICS = """
SELECT format('CREATE STATISTICS %I.%I %s ON %s FROM %s', n.nspname, e.stxname,
              (SELECT '(' || string_agg(CASE kind WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END,
                                        ', ') || ')'
               FROM unnest(e.stxkind) kind WHERE kind <> 'e'), pg_get_statisticsobjdef_columns(e.oid), {new}),
       n.nspname AS schema, e.stxname AS name, nullif(e.stxstattarget, -1) AS target,
       obj_description(e.oid, 'pg_statistic_ext') AS comment
FROM pg_statistic_ext e JOIN pg_namespace n ON n.oid = e.stxnamespace WHERE e.stxrelid = {old} ORDER BY e.oid
"""
FLAGS = """
SELECT format('ALTER TABLE %s %s', {new}, s.flag) FROM pg_class c, LATERAL (VALUES
  (CASE WHEN c.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END),
  (CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END),
  (CASE c.relreplident WHEN 'n' THEN 'REPLICA IDENTITY NOTHING' WHEN 'f' THEN 'REPLICA IDENTITY FULL' END)) s (flag)
WHERE c.oid = {old} AND s.flag IS NOT NULL
"""
SECURITY_FLAGS = """
SELECT format('ALTER TABLE %s %s ROW LEVEL SECURITY', {new}, s.flag) FROM pg_class c, LATERAL (VALUES
  (CASE WHEN c.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END),
  (CASE WHEN c.relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END)) s (flag)
WHERE c.oid = {old}
"""
COMMENTS = """
SELECT format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, {new}, obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k
WHERE k.conrelid = {old} AND k.contype IN ('c', 'n') AND obj_description(k.oid, 'pg_constraint') IS NOT NULL
  AND k.conname <> {check} ORDER BY k.conname
"""

# For the table that has the name by then. {old} is the OID of the one that had it.
POLICIES = """
SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, {new},
              CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
              CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                            ELSE 'DELETE' END,
              (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', ')
               FROM unnest(p.polroles) role),
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
FROM pg_policy p WHERE p.polrelid = {old} ORDER BY p.polname
"""
POLICY_COMMENTS = """
SELECT format('COMMENT ON POLICY %I ON %s IS %L', p.polname, {new}, obj_description(p.oid, 'pg_policy'))
FROM pg_policy p WHERE p.polrelid = {old} AND obj_description(p.oid, 'pg_policy') IS NOT NULL ORDER BY p.polname
"""
TRIGGERS = """
SELECT s.statement FROM pg_trigger g, LATERAL (VALUES
  (1, pg_get_triggerdef(g.oid)),
  (2, CASE g.tgenabled WHEN 'D' THEN format('ALTER TABLE %s DISABLE TRIGGER %I', {new}, g.tgname)
                       WHEN 'R' THEN format('ALTER TABLE %s ENABLE REPLICA TRIGGER %I', {new}, g.tgname)
                       WHEN 'A' THEN format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', {new}, g.tgname) END),
  (3, format('COMMENT ON TRIGGER %I ON %s IS %L', g.tgname, {new}, obj_description(g.oid, 'pg_trigger')))
) s (place, statement)
WHERE g.tgrelid = {old} AND NOT g.tgisinternal AND s.statement IS NOT NULL
  AND (s.place < 3 OR obj_description(g.oid, 'pg_trigger') IS NOT NULL) ORDER BY g.tgname, s.place
"""
DROP_TRIGGERS = """
SELECT format('DROP TRIGGER %I ON %s', tgname, {new}) FROM pg_trigger WHERE tgrelid = {old} AND NOT tgisinternal
ORDER BY tgname
"""
DROP_POLICIES = (
    "SELECT format('DROP POLICY %I ON %s', polname, {new}) FROM pg_policy WHERE polrelid = {old} ORDER BY polname"
)
REFERENCES = """
SELECT s.statement FROM pg_constraint k, LATERAL (VALUES
  (1, format('ALTER TABLE %s ADD CONSTRAINT %I %s', {new}, k.conname, pg_get_constraintdef(k.oid))),
  (2, format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, {new}, obj_description(k.oid, 'pg_constraint')))
) s (place, statement)
WHERE k.conrelid = {old} AND k.contype = 'f' AND k.conparentid = 0 AND k.confrelid <> {old}
  AND (s.place < 2 OR obj_description(k.oid, 'pg_constraint') IS NOT NULL) ORDER BY k.conname, s.place
"""
# Tables that its foreign keys point to: to add such a key locks them against writers.
TARGETS = """
SELECT DISTINCT o.oid, n.nspname AS schema, o.relname AS table
FROM pg_constraint k JOIN pg_class o ON o.oid = k.confrelid JOIN pg_namespace n ON n.oid = o.relnamespace
WHERE k.conrelid = {old} AND k.contype = 'f' AND k.conparentid = 0 AND k.confrelid <> k.conrelid
  AND has_table_privilege({login}, o.oid, 'UPDATE, DELETE, TRUNCATE') ORDER BY o.oid
"""
# Of other tables. DROP before, ADD after; what was valid is validated once it is done.
REFERENCED = """
SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, o.relname, k.conname) AS take,
       format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s%s', n.nspname, o.relname, k.conname, pg_get_constraintdef(k.oid),
              CASE WHEN k.convalidated THEN ' NOT VALID' END) AS give,
       format('COMMENT ON CONSTRAINT %I ON %I.%I IS %L', k.conname, n.nspname, o.relname,
              obj_description(k.oid, 'pg_constraint')) AS comment,
       obj_description(k.oid, 'pg_constraint') IS NOT NULL AS commented,
       k.convalidated AS valid, n.nspname AS schema, o.relname AS table, k.conname AS name, o.oid
FROM pg_constraint k JOIN pg_class o ON o.oid = k.conrelid JOIN pg_namespace n ON n.oid = o.relnamespace
WHERE k.confrelid = {old} AND k.contype = 'f' AND k.conparentid = 0 AND o.oid <> {old}
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = {old} AND inhrelid = o.oid) ORDER BY o.oid, k.conname
"""
# Whatever a view has beside its query stays with it: grants, comments, triggers, views above.
VIEWS = """
SELECT DISTINCT v.oid, n.nspname AS schema, v.relname AS name, pg_get_userbyid(v.relowner) AS owner,
       CASE WHEN r.rulename = '_RETURN'
            THEN format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname,
                        (SELECT format(' WITH (%s)', string_agg(format('%I=%L', option_name, option_value), ', '))
                         FROM pg_options_to_table(v.reloptions) HAVING count(*) > 0),
                        rtrim(pg_get_viewdef(v.oid), ';'))
            ELSE regexp_replace(pg_get_ruledef(r.oid), '^CREATE RULE', 'CREATE OR REPLACE RULE') END AS statement,
       r.rulename <> '_RETURN' AS is_rule
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {old}
  AND r.ev_class <> {old} ORDER BY is_rule, v.oid
"""
# Column lists and row filters came with 15.
PUBLICATIONS = """
SELECT format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, {was}) AS take,
       format('ALTER PUBLICATION %I ADD TABLE %s%s%s', p.pubname, {new},
              (SELECT format(' (%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum))
               FROM pg_attribute a WHERE a.attrelid = r.prrelid
                 AND to_jsonb(r) -> 'prattrs' @> to_jsonb(a.attnum) HAVING count(*) > 0),
              {filter}) AS give
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = {old} ORDER BY p.pubname
"""
ROW_FILTER = "' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')'"
# Of an identity column the sequence cannot change its owner: another goes on where it was.
SEQUENCES = """
SELECT n.nspname AS schema, c.relname AS name, a.attname AS column, d.deptype = 'i' AS identity, c.oid,
       pg_get_userbyid(c.relowner) AS owner,
       format('GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s '
              'CACHE %s %sCYCLE)',
              CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, n.nspname, c.relname,
              s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN NOT s.seqcycle THEN 'NO ' END)
         AS generated,
       obj_description(c.oid, 'pg_class') AS comment,
       ARRAY(SELECT format('GRANT %s ON SEQUENCE %I.%I TO %s%s', x.privilege_type, n.nspname, c.relname,
                           CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                           CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END)
             FROM aclexplode(c.relacl) x) AS grants,
       c.relacl IS NOT NULL AS granted
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_sequence s ON s.seqrelid = c.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {old}
  AND d.deptype IN ('a', 'i') AND c.relkind = 'S' ORDER BY a.attnum, c.oid
"""
INDEX_COLUMNS = """
(SELECT format('(%s)%s',
               string_agg(quote_ident(a.attname), ', ' ORDER BY u.place) FILTER (WHERE u.place <= {index}.indnkeyatts),
               ' INCLUDE (' || string_agg(quote_ident(a.attname), ', ' ORDER BY u.place)
                               FILTER (WHERE u.place > {index}.indnkeyatts) || ')')
 FROM unnest({index}.indkey::int2[]) WITH ORDINALITY u(number, place)
 JOIN pg_attribute a ON a.attrelid = {index}.indrelid AND a.attnum = u.number)"""
# An index of the plain table, and how the parent's is made. What stands before USING is known, whatever names hold.
INDEXES = """
SELECT c.oid, c.relname AS name, k.contype AS constraint, x.indisreplident AS identifies,
       pg_get_constraintdef(k.oid) AS definition, coalesce(k.condeferrable, false) AS deferrable,
       coalesce(k.condeferred, false) AS deferred, coalesce(s.spcname, '') AS tablespace,
       substr(x.def, length(x.head) + 1) AS using, x.indisunique AS is_unique, starts_with(x.def, x.head) AS readable,
       obj_description(c.oid, 'pg_class') AS comment, obj_description(k.oid, 'pg_constraint') AS constraint_comment,
       {columns} AS columns,
       coalesce((to_jsonb(x) ->> 'indnullsnotdistinct')::bool, false) AS nulls_not_distinct
FROM (SELECT i.*, pg_get_indexdef(i.indexrelid) AS def,
             format('CREATE %sINDEX %I ON %I.%I USING ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, ic.relname,
                    n.nspname, p.relname) AS head
      FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_class p ON p.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = p.relnamespace WHERE i.indrelid = {old}) x
JOIN pg_class c ON c.oid = x.indexrelid LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u')
ORDER BY k.oid IS NULL, c.oid
"""


@dataclass(frozen=True, slots=True)
class Index:
    """One index of the plain table. ``make``: how the parent gets the one of that name; None where it has none."""

    name: str
    renamed: str
    """What that of the plain table is called once it belongs to a partition."""
    primary: bool
    make: SQL | None
    identifies: bool
    comments: tuple[SQL, ...] = ()
    widened: WidenedKey | None = None
    deferrable: str = ""
    columns: str = ""
    """Of the wider key, with INCLUDE, as SQL."""
    tablespace: str = ""


def statements(connection: psycopg.Connection[Any], *queries: LiteralString, **values: Any) -> list[SQL]:
    """The first column of each row of each query, as statements. Raises psycopg's errors, and as `text`."""
    return [text(row[0]) for rows in rows_of(connection, *queries, **values) for row in rows]


def rows_of(connection: psycopg.Connection[Any], *queries: LiteralString, **values: Any) -> list[list[Any]]:
    """The rows of each query, in one round trip."""
    return run(connection, *(SQL(query).format(**values) for query in queries))


def columns_of(index: LiteralString) -> Composed:
    """What stands behind the table's name where an index is made, as an expression. ``index``: alias of pg_index."""
    return SQL(INDEX_COLUMNS).format(index=SQL(index))


def text(statement: str) -> SQL:
    """A statement that the server has written. Raises `StatementRejected` where it is too long to be sent back."""
    if len(statement) > LONGEST_TEXT:
        raise StatementRejected(
            f"the definition {statement[:60]!r}… has more than {LONGEST_TEXT:,} characters, and no longer one is "
            "carried over; shorten it"
        )
    return SQL(statement)


def legacy_name(table: str, legacy: str, name: str) -> str:
    """What an index, a sequence or statistics of the table is called once the table is called ``legacy``.

    The same for the same names, so that the way back knows it: shortened, it ends with a hash of the whole.
    """
    wanted = f"{legacy}{name[len(table) :]}" if name.startswith(f"{table}_") else f"{legacy}_{name}"
    if len(wanted.encode()) <= LONGEST_NAME:
        return wanted
    tail = f"_{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    return wanted.encode()[: LONGEST_NAME - len(tail)].decode(errors="ignore") + tail


def constraint_name(table: str, column: str, what: str) -> str:
    """What PostgreSQL calls a constraint by itself: of table and column the longer one is cut where all is too long."""
    parts, room = [table.encode(), column.encode()], LONGEST_NAME - len(what) - 2
    while len(parts[0]) + len(parts[1]) > room:
        longer = 0 if len(parts[0]) > len(parts[1]) else 1
        parts[longer] = parts[longer][:-1]
    return "_".join([*(each.decode(errors="ignore") for each in parts), what])


def read_indexes(
    connection: psycopg.Connection[Any],
    oid: int,
    table: Identifier,
    names: tuple[str, str, str],
    widened: dict[str, WidenedKey],
) -> list[Index]:
    """The indexes of the plain table with that OID, those of constraints first. ``table``: the parent for which
    `Index.make` is; ``names``: schema, name and name as a partition. Raises `StatementRejected`, psycopg's errors.
    """
    schema, name, legacy = names
    wide = {each.index: each for each in widened.values()}
    (rows,) = rows_of(connection, INDEXES, old=oid, columns=columns_of("x"))
    by_name = {row.name: row for row in rows}
    indexes = []
    for row in rows:
        if row.name in wide:
            continue
        if not row.readable:
            raise StatementRejected(f"index {row.name} of {schema}.{name} cannot be read; drop it first")
        key = widened.get(row.name) if row.constraint else None
        indexes.append(
            Index(
                name=row.name,
                renamed=legacy_name(name, legacy, row.name),
                primary=row.constraint == "p",
                make=_make(row, by_name[key.index] if key else None, table),
                identifies=row.identifies,
                # A wider primary key is made when the parent has its name.
                comments=tuple(
                    _comments(
                        row,
                        Identifier(schema, row.name),
                        Identifier(schema, name) if key and row.constraint == "p" else table,
                    )
                ),
                widened=key,
                deferrable=_deferrable(row),
                columns=by_name[key.index].columns if key else row.columns or "",
                tablespace=row.tablespace,
            )
        )
    return indexes


def _deferrable(row: Any) -> str:
    return (" DEFERRABLE" if row.deferrable else "") + (" INITIALLY DEFERRED" if row.deferred else "")


def _make(row: Any, wide: Any | None, table: Identifier) -> SQL:
    if wide is not None:
        kind = "PRIMARY KEY" if row.constraint == "p" else "UNIQUE"
        kind += " NULLS NOT DISTINCT" if wide.nulls_not_distinct else ""
        return text(_add(table, row.name, f"{kind} {wide.columns}{_deferrable(row)}"))
    if row.constraint:
        return text(_add(table, row.name, row.definition))
    unique, name = "UNIQUE " if row.is_unique else "", Identifier(row.name).as_string()
    return text(f"CREATE {unique}INDEX {name} ON {table.as_string()} USING {row.using}")


def _add(table: Identifier, name: str, definition: str) -> str:
    return f"ALTER TABLE {table.as_string()} ADD CONSTRAINT {Identifier(name).as_string()} {definition}"


def _comments(row: Any, index: Identifier, table: Identifier) -> list[SQL]:
    """On the index of the parent, and on its constraint."""
    found: list[Composed] = []
    if row.comment is not None:
        found.append(SQL("COMMENT ON INDEX {} IS {}").format(index, row.comment))
    if row.constraint_comment is not None:
        on = SQL("COMMENT ON CONSTRAINT {} ON {} IS {}")
        found.append(on.format(Identifier(row.name), table, row.constraint_comment))
    return [SQL(each.as_string()) for each in found]
