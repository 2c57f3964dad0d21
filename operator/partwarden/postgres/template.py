"""What a new partition has beside what LIKE and ATTACH give it: read from the catalog, and made as SQL.

Also in what existing partitions differ from their parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..planner.inventory import ColumnSetting, Inventory, PartitionTemplate, RelationKind, RowPolicy
from .ddl import Relation, bounded, check_text, relation
from .transaction import parent_of

COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
"""``pg_policy.polcmd``."""
IDENTITIES = {"n": "NOTHING", "f": "FULL"}

# The index has a name that PostgreSQL chose; it is found by the parent's index, whose part it is.
USING_INDEX = """
BEGIN
  EXECUTE (SELECT format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', x.indrelid::regclass, c.relname)
           FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid JOIN pg_class c ON c.oid = x.indexrelid
           WHERE i.inhparent = {} AND x.indrelid = {}::regclass);
END
"""


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
    if like.replica_identity in IDENTITIES:
        yield SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, SQL(IDENTITIES[like.replica_identity]))


def after_attach(like: PartitionTemplate, partition: Relation) -> Iterator[Composed]:
    """For the partition, whose indexes ATTACH has made."""
    if like.identity_index is not None:
        table = Literal(relation(partition).as_string())
        body = SQL(USING_INDEX).format(like.identity_index, table).as_string()
        yield SQL("DO {}").format(Literal(body))


def _policy(table: Identifier, policy: RowPolicy) -> Composed:
    parts: list[Composable] = [
        SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
            Identifier(policy.name),
            table,
            SQL("PERMISSIVE" if policy.permissive else "RESTRICTIVE"),
            SQL(COMMANDS[policy.command]),
            SQL(", ").join(SQL("PUBLIC") if role is None else Identifier(role) for role in policy.roles),
        )
    ]
    # PostgreSQL's own text of an expression that it holds, and deparsed with every name qualified.
    if policy.using is not None:
        parts.append(SQL("USING ({})").format(SQL(policy.using)))
    if policy.check is not None:
        parts.append(SQL("WITH CHECK ({})").format(SQL(policy.check)))
    return SQL(" ").join(parts)


STORAGE = """
SELECT CASE WHEN s.relam = coalesce(nullif(p.relam, 0), s.relam)
            THEN ARRAY(SELECT ARRAY[option_name, option_value] FROM pg_options_to_table(s.reloptions)
                       UNION ALL
                       SELECT ARRAY['toast.' || option_name, option_value] FROM pg_options_to_table(t.reloptions)) END
         AS options,
       (SELECT spcname FROM pg_tablespace WHERE oid = coalesce(nullif(p.reltablespace, 0), s.reltablespace))
         AS tablespace,
       nullif((SELECT amname FROM pg_am WHERE oid = coalesce(nullif(p.relam, 0), s.relam)),
              current_setting('default_table_access_method')) AS access_method,
       CASE WHEN p.relreplident <> 'd' THEN p.relreplident ELSE coalesce(s.relreplident, 'd') END AS replica_identity,
       coalesce((SELECT indexrelid FROM pg_index WHERE indrelid = p.oid AND indisreplident),
                (SELECT i.inhparent FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indexrelid
                 WHERE x.indrelid = s.oid AND x.indisreplident)) AS identity_index,
       -- Partitioned tables that are UNLOGGED exist up to 17, where it says what their partitions should be.
       coalesce(s.relpersistence, p.relpersistence) = 'u' AS unlogged,
       coalesce((SELECT relpersistence = 'u' FROM pg_class WHERE oid = {default}), false) AS default_unlogged
FROM pg_class p
LEFT JOIN pg_class s ON s.oid = {sibling}
LEFT JOIN pg_class t ON t.oid = s.reltoastrelid
WHERE p.oid = {parent}
"""

COLUMNS = """
SELECT * FROM (
  SELECT p.attname AS name, coalesce(nullif(p.attstattarget, -1), nullif(s.attstattarget, -1)) AS statistics,
         ARRAY(SELECT ARRAY[option_name, option_value]
               FROM pg_options_to_table(coalesce(p.attoptions, s.attoptions))) AS options
  FROM pg_attribute p
  LEFT JOIN pg_attribute s ON s.attrelid = {sibling} AND s.attname = p.attname AND NOT s.attisdropped
  WHERE p.attrelid = {parent} AND p.attnum > 0 AND NOT p.attisdropped ORDER BY p.attnum) c
WHERE c.statistics IS NOT NULL OR c.options <> '{{}}'
"""

POLICIES = """
SELECT polname AS name, polpermissive AS permissive, polcmd AS command,
       ARRAY(SELECT CASE WHEN role <> 0 THEN pg_get_userbyid(role) END FROM unnest(polroles) AS role) AS roles,
       {using} AS using, {check} AS check
FROM pg_policy WHERE polrelid = {sibling} ORDER BY polname
"""


def queries(inventory: Inventory) -> list[Composed]:
    """What `from_rows` is made from."""
    names = {"parent": parent_of(inventory).oid, "sibling": newest(inventory)}
    default = inventory.default.oid if inventory.default else 0
    texts = {
        "using": SQL(bounded("pg_get_expr(polqual, polrelid)")),
        "check": SQL(bounded("pg_get_expr(polwithcheck, polrelid)")),
    }
    return [SQL(query).format(**names, **texts, default=default) for query in (STORAGE, COLUMNS, POLICIES)]


def from_rows(results: Sequence[list[Any]]) -> PartitionTemplate:
    """The template, from the rows of `queries`."""
    (row,), columns, policies = results
    by_index = row.replica_identity == "i"
    for each in policies:
        for text in filter(None, (each.using, each.check)):
            check_text(f"cannot give new partitions the row security policy {each.name!r}: its expression", text)
    return PartitionTemplate(
        options=_pairs(row.options),
        tablespace=row.tablespace,
        access_method=row.access_method,
        # An index of the sibling alone has no counterpart in a new partition.
        replica_identity="d" if by_index and row.identity_index is None else row.replica_identity,
        identity_index=row.identity_index if by_index else None,
        unlogged=row.unlogged,
        default_unlogged=row.default_unlogged,
        columns=tuple(ColumnSetting(each.name, each.statistics, _pairs(each.options)) for each in columns),
        policies=tuple(RowPolicy(**each._asdict() | {"roles": tuple(each.roles)}) for each in policies),
    )


def _pairs(options: list[list[str]] | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in options or ())


def newest(inventory: Inventory) -> int:
    """OID of the plain partition with the highest range, 0 where there is none."""
    found = [
        (each.range.lower.replace(tzinfo=None), each.oid)
        for each in inventory.partitions
        if each.kind is RelationKind.TABLE and not each.detach_pending and each.range and each.range.lower
    ]
    return max(found)[1] if found else 0


class Traits(NamedTuple):
    """What of a table is compared with its parent's, as `TRAITS` reads it."""

    owner: int
    acl: list[str] | None
    """None: what its owner has where nothing was granted or revoked."""
    secured: bool
    forced: bool
    replica_identity: str


@dataclass(frozen=True, slots=True)
class Model:
    """The parent's; ``default_acl``: what its owner has where nothing was granted or revoked."""

    traits: Traits
    default_acl: list[str]

    def differs(self, each: Traits) -> tuple[str, ...]:
        """In what a partition with these differs, where that matters."""
        own = self.traits
        return tuple(
            what
            for what, differs in (
                ("owner", each.owner != own.owner),
                # With another owner everything is granted by another role.
                ("grants", each.owner == own.owner and each.acl != own.acl and self._rights(each) != self._rights(own)),
                # The other way round it hides more than it must, and only from sessions that read the partition itself.
                ("row security", (own.secured, own.forced) > (each.secured, each.forced)),
                ("replica identity", own.replica_identity not in ("d", each.replica_identity)),
            )
            if differs
        )

    def _rights(self, each: Traits) -> frozenset[str]:
        return frozenset(self.default_acl if each.acl is None else each.acl)


TRAITS = "c.relowner, c.relacl::text[], c.relrowsecurity, c.relforcerowsecurity, c.relreplident"
"""Columns of ``pg_class c``."""


def traits_of(row: Any) -> Traits:
    """From a row with the columns `TRAITS`."""
    return Traits(row.relowner, row.relacl, row.relrowsecurity, row.relforcerowsecurity, row.relreplident)


DEFAULT_ACL = "acldefault('r', c.relowner)::text[]"
