"""The parent that a plain table is going to have, and the partitions ahead, made beside it in the same transaction.

Nothing here keeps a reader or a writer of the plain table waiting: it is locked against other DDL only (SHARE UPDATE
EXCLUSIVE), its indexes get other names, which only such a lock needs, and all that is new is seen by no other session
before COMMIT. So what takes its time is done before `conversion_swap` asks for the lock that others wait for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..errors import StatementRejected
from ..planner import marker
from ..planner.conversion import Conversion, NewPartition
from ..planner.inventory import Grant, Parent, PartitionTemplate, Relation, RelationKind
from ..planner.marker import ConvertedMark
from . import catalog, ddl
from . import conversion_definition as definition
from .connection import run
from .conversion_definition import Index, rows_of, statements
from .create import NEW_ACLS, grants
from .settings import setting

ABOUT = """
SELECT pg_get_userbyid(c.relowner) AS owner, s.spcname AS tablespace, NOT a.attnotnull AS nullable,
       {comment} AS comment, {length} AS length
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = {key} AND a.attnum > 0
LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE c.oid = {oid}
"""
LIKE = """CREATE TABLE {new} (LIKE {old} INCLUDING COMMENTS INCLUDING COMPRESSION INCLUDING DEFAULTS INCLUDING GENERATED
INCLUDING STORAGE) PARTITION BY RANGE ({key}) TABLESPACE {tablespace}"""
OID = "SELECT oid FROM pg_class WHERE relname = {name} AND relnamespace = {schema}::regnamespace"
SECURITY = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = {parent}"
PRIMARY = """
SELECT p.relname AS table, c.relname AS index FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
JOIN pg_class p ON p.oid = x.indrelid
WHERE x.indisprimary AND p.relnamespace = {schema}::regnamespace AND p.relname = ANY ({names})
"""


@dataclass(frozen=True, slots=True)
class Ready:
    """The parent as it stands before the swap. ``name``: what it is called until then."""

    oid: int
    name: Identifier
    owner: str
    comment: str | None
    """That of the plain table, without any mark of a conversion."""
    mark: ConvertedMark | None
    """The one that a way back has left on it, which was not finished."""
    nullable: bool
    """Whether the key column of the plain table must become NOT NULL, for a wider primary key."""
    indexes: tuple[Index, ...]
    wider: Index | None
    """The wider primary key, which the parent gets once the plain table is its partition."""
    primary: tuple[Identifier, ...]
    """Of each partition ahead the index of its primary key, where that of the parent is a wider one."""


def prepare(connection: psycopg.Connection[Any], conversion: Conversion) -> Ready:
    """Make the parent and the partitions ahead. The transaction runs as the table's owner, who may create there.

    Raises psycopg's errors, and `StatementRejected` for what cannot be read.
    """
    schema, old = conversion.schema, Identifier(conversion.schema, conversion.table)
    name = f"partwarden_{conversion.oid}"
    new = Identifier(schema, name)
    about_query = SQL(ABOUT).format(
        oid=conversion.oid, key=conversion.key, comment=ddl.COMMENT, length=ddl.COMMENT_LENGTH
    )
    (row,) = run(connection, about_query)[0]
    if row.length > marker.LONGEST:
        raise StatementRejected(
            f"cannot convert {schema}.{conversion.table}: its comment has more than {marker.LONGEST:,} bytes, and no "
            "longer one is read; shorten the comment"
        )
    indexes = definition.read_indexes(
        connection,
        conversion.oid,
        new,
        (schema, conversion.table, conversion.legacy),
        {each.constraint: each for each in conversion.widened},
    )
    wider = next((each for each in indexes if each.primary and each.widened), None)
    nullable = row.nullable and wider is not None
    create = SQL(LIKE if row.tablespace else LIKE.removesuffix(" TABLESPACE {tablespace}")).format(
        new=new, old=old, key=Identifier(conversion.key), tablespace=Identifier(row.tablespace or "")
    )
    oid_query = SQL(OID).format(name=name, schema=Identifier(schema).as_string())
    _, ((oid,),), acls = run(connection, create, oid_query, SQL(NEW_ACLS).format(schema, [name]))
    (rights,) = rows_of(connection, catalog.ACL, parent=conversion.oid)
    parent = Parent(
        oid, schema, name, RelationKind.PARTITIONED, row.owner, grants=tuple(Grant(*each) for each in rights)
    )
    comment = marker.write_converted(row.comment, conversion.oid, None)
    complete = [*_complete(connection, conversion, parent, indexes, comment, nullable)]
    run(connection, *complete, *ddl.set_grants(parent, parent, grants(acls)))
    _make_ahead(connection, conversion, parent, wider)
    names = [each.name for each in conversion.ahead]
    (found,) = rows_of(
        connection, PRIMARY, schema=Identifier(schema).as_string(), names=SQL("{}::name[]").format(names)
    )
    primary = tuple(Identifier(schema, each.index) for each in found) if wider else ()
    mark = marker.read_converted(row.comment, conversion.oid)
    return Ready(oid, new, row.owner, comment, mark, nullable, tuple(indexes), wider, primary)


def _complete(
    connection: psycopg.Connection[Any],
    conversion: Conversion,
    parent: Parent,
    indexes: Sequence[Index],
    comment: str | None,
    nullable: bool,
) -> Iterator[Composable]:
    """All that the empty parent has by itself."""
    new = ddl.relation(parent)
    values = {"old": conversion.oid, "new": new.as_string(), "check": conversion.check}
    if nullable:
        yield _not_null(connection, new, conversion)
    yield from statements(connection, definition.COLUMNS, definition.CHECKS, **values)
    for each in indexes:
        yield _rename("INDEX", conversion.schema, each.name, each.renamed)
        if not (each.primary and each.widened):
            # Where an index lies is not in its definition; a constraint takes it from here, too.
            yield setting({"default_tablespace": each.tablespace})
            yield from filter(None, (each.make, *each.comments))
    yield setting({"default_tablespace": ""})
    (extended,) = rows_of(connection, definition.STATISTICS, old=conversion.oid, new=new.as_string())
    for row in extended:
        yield _rename("STATISTICS", row.schema, row.name, legacy_statistics(conversion, row.name))
        yield definition.text(row[0])
        name = Identifier(row.schema, row.name)
        if row.target is not None:
            yield SQL("ALTER STATISTICS {} SET STATISTICS {}").format(name, row.target)
        if row.comment is not None:
            yield SQL("COMMENT ON STATISTICS {} IS {}").format(name, row.comment)
    yield from statements(connection, definition.FLAGS, definition.COMMENTS, **values)
    for each in indexes:
        if each.identifies and not (each.primary and each.widened):
            yield identify(new, each)
    if comment is not None:
        yield SQL("COMMENT ON TABLE {} IS {}").format(new, comment)


def _not_null(connection: psycopg.Connection[Any], new: Identifier, conversion: Conversion) -> Composed:
    """For the key column. From 18 on that is a constraint, which bears the name of the table as it is to be."""
    if connection.info.server_version < 180000:
        return SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(new, Identifier(conversion.key))
    name = definition.constraint_name(conversion.table, conversion.key, "not_null")
    add = SQL("ALTER TABLE {} ADD CONSTRAINT {} NOT NULL {}")
    return add.format(new, Identifier(name), Identifier(conversion.key))


def legacy_statistics(conversion: Conversion, name: str) -> str:
    """What extended statistics of the plain table are called from then on."""
    return definition.legacy_name(conversion.table, conversion.legacy, name)


def identify(table: Identifier, index: Index) -> Composed:
    """The parent's rows are identified by that index."""
    return SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(table, Identifier(index.name))


def _rename(kind: str, schema: str, name: str, to: str) -> Composed:
    return SQL("ALTER {} {} RENAME TO {}").format(SQL(kind), Identifier(schema, name), Identifier(to))


def _make_ahead(
    connection: psycopg.Connection[Any],
    conversion: Conversion,
    parent: Parent,
    wider: Index | None,
) -> None:
    """Make the partitions as `create` makes them, like the plain table in storage."""
    if not conversion.ahead:
        return
    template = _template(connection, conversion, parent)
    names = [each.name for each in conversion.ahead]
    tables = [Relation(0, conversion.schema, name) for name in names]
    *_, acls = run(
        connection,
        *(ddl.create_table(parent, each, template) for each in tables),
        SQL(NEW_ACLS).format(conversion.schema, names),
    )
    ((secured, forced),) = rows_of(connection, SECURITY, parent=parent.oid)[0]
    making: list[Composable] = []
    for table, partition in zip(tables, conversion.ahead, strict=True):
        making += ddl.set_grants(parent, table, grants(acl for acl in acls if acl.relname == table.name))
        making += ddl.set_row_security(table, secured, forced)
        making += ddl.before_attach(template, table)
        making.append(_attach(parent, table, partition))
        if wider:
            # Not before: another unique index of the parent with these columns would take this one for its own.
            key = definition.text(f"{wider.columns}{wider.deferrable}")
            add = SQL("ALTER TABLE {} ADD PRIMARY KEY {}").format(ddl.relation(table), key)
            making += [setting({"default_tablespace": wider.tablespace}), add, setting({"default_tablespace": ""})]
        making += ddl.after_attach(template, table)
    run(connection, *making)


def _attach(parent: Relation, table: Relation, partition: NewPartition) -> Composed:
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
        ddl.relation(parent), ddl.relation(table), partition.lower, partition.upper
    )


def _template(connection: psycopg.Connection[Any], conversion: Conversion, parent: Parent) -> PartitionTemplate:
    """What the partitions ahead have from the plain table, where the parent says nothing. Policies are the parent's."""
    values = {"parent": parent.oid, "sibling": conversion.oid}
    (row,), columns = rows_of(connection, catalog.STORAGE, catalog.COLUMNS, **values)
    return catalog.template(row, columns, ())
