"""Names that the first partition of a converted table gets back when it becomes the plain table again."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Identifier

from ..planner.inventory import Relation
from ..planner.marker import ConvertedMark
from . import conversion_definition as definition
from . import ddl
from .connection import Session
from .conversion_definition import legacy_name, rows_of

KEY = """
SELECT a.attname FROM pg_partitioned_table p
JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
WHERE p.partrelid = {oid}
"""
# Indexes and constraints of the parent, and what those of the old table are called. Where it is an index that was built
# for a wider key, the narrow key's has the same columns but for the last one: whatever was renamed since, it is found.
PAIRS = """
SELECT p.relname AS parent, c.relname AS child,
       ARRAY(SELECT o.relname FROM pg_index z JOIN pg_class o ON o.oid = z.indexrelid
        JOIN pg_constraint k ON k.conindid = z.indexrelid AND k.conrelid = z.indrelid AND k.contype IN ('p', 'u')
        WHERE z.indrelid = {legacy} AND z.indnatts = x.indnatts - 1
          AND array_to_string(z.indkey::int2[], ' ') = array_to_string((x.indkey::int2[])[:x.indnatts - 2], ' ')
          AND NOT EXISTS (SELECT FROM pg_inherits n WHERE n.inhrelid = z.indexrelid)
        ORDER BY k.contype = CASE WHEN y.indisprimary THEN 'p' ELSE 'u' END DESC, o.oid) AS narrow
FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_index x ON x.indexrelid = c.oid JOIN pg_index y ON y.indexrelid = p.oid
WHERE x.indrelid = {legacy} AND y.indrelid = {parent} ORDER BY p.oid
"""
EXTENDED = """
SELECT n.nspname AS schema, e.stxname AS name FROM pg_statistic_ext e JOIN pg_namespace n ON n.oid = e.stxnamespace
WHERE e.stxrelid = {legacy} ORDER BY e.oid
"""


def names_again(connection: Session, parent: Relation, legacy: Relation, mark: ConvertedMark) -> Iterator[Composable]:
    """Indexes, constraints and statistics of the old table have the names of the parent's, once that is gone."""
    schema = parent.schema
    plain = ddl.relation(parent)
    pairs, extended, old_extended, ((key,),) = rows_of(
        connection,
        *(PAIRS, definition.STATISTICS, EXTENDED, KEY),
        **{"oid": parent.oid, "parent": parent.oid, "legacy": legacy.oid, "old": parent.oid, "new": plain.as_string()},
    )
    wide = {index for _, index in mark.keys}
    for each in pairs:
        child = each.child
        if child in wide and each.narrow:
            # Safe: an index that was built for the conversion; the key that it widened has its own.
            yield SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(plain, Identifier(child))
            named = legacy_name(parent.name, legacy.name, each.parent)
            child = named if named in each.narrow else each.narrow[0]
        if child != each.parent:
            yield SQL("ALTER INDEX {} RENAME TO {}").format(Identifier(schema, child), Identifier(each.parent))
    there = {(each.schema, each.name) for each in old_extended}
    for each in extended:
        child = legacy_name(parent.name, legacy.name, each.name)
        if (each.schema, child) in there:
            yield SQL("ALTER STATISTICS {} RENAME TO {}").format(Identifier(each.schema, child), Identifier(each.name))
        else:
            # Made since, on the partitioned table, which takes its own along.
            yield definition.text(each[0])
    if mark.nullable:
        yield SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(plain, Identifier(key))
