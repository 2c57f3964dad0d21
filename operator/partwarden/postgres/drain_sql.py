"""The statements that move rows of DEFAULT into a table that is to become a partition.

A row that was copied is remembered, in a table of the transaction's own, by where it lay and which transaction wrote
it (``ctid`` and ``xmin``, which no other version of a row shares), and where its copy lies. Columns go by their names:
parent, DEFAULT and the new table may have them in different places.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from ..errors import InsufficientPrivilege, StatementRejected, TableChanged
from ..planner.actions import DrainIntoPartition
from ..planner.findings import quoted
from ..planner.inventory import Parent, Partition
from .ddl import count, in_range, relation

FACTS = SQL("""
SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE i.inhrelid = c.oid AND i.inhparent = {parent} AND pg_get_expr(c.relpartbound, 0) = 'DEFAULT'
                 AND c.oid = {default} AND c.relkind = 'r') AS same,
       pg_has_role(c.relowner, 'USAGE') AS owned, row_security_active(c.oid) AS hidden, c.relhasrules AS ruled,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
             ORDER BY a.attnum) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS all_columns,
       ARRAY(SELECT ARRAY[t.tgname::text, t.tgenabled::text] FROM pg_trigger t
             -- What keeps foreign keys is a trigger as well, and stays.
             WHERE t.tgrelid = c.oid AND t.tgtype & 8 <> 0 AND t.tgenabled <> 'D'
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
             ORDER BY 1) AS triggers,
       -- Indexes of EXCLUDE, and of keys WITHOUT OVERLAPS, are not taken over by ATTACH, but made twice.
       NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = {parent} AND x.indisexclusion) AS indexes
FROM pg_class c WHERE c.relname = {name} AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
""")

PUBLISHED = SQL("""
SELECT p.pubname FROM pg_publication p
WHERE current_setting('wal_level') = 'logical' AND (p.pubinsert OR p.pubdelete)
  AND (p.puballtables
       OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_partition_ancestors({default}) a ON a.relid = r.prrelid
                  WHERE r.prpubid = p.oid){schemas})
ORDER BY 1
""")
# From 15 on a publication may list schemas.
SCHEMAS = SQL("""
       OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                  JOIN pg_partition_ancestors({default}) a ON a.relid = c.oid WHERE s.pnpubid = p.oid)""")


def ask(parent: Parent, default: Partition, version: int) -> tuple[Composed, Composed]:
    """The facts that `check` wants, and the names of publications that send these rows to others.

    DEFAULT must be locked against changes of them. ``version``: the server's, as 180003.
    """
    facts = FACTS.format(parent=parent.oid, default=default.oid, schema=default.schema, name=default.name)
    schemas = SCHEMAS.format(default=default.oid) if version >= 150000 else SQL("")
    return facts, PUBLISHED.format(default=default.oid, schemas=schemas)


def check(default: Partition, action: DrainIntoPartition, user: str, facts: Any, publications: Sequence[str]) -> None:
    """Raises `TableChanged`, `InsufficientPrivilege` or `StatementRejected`.

    ``facts``: the row of `FACTS`, None where there is none. ``user``: the role that all is done as.
    """
    if facts is None or not facts.same:
        raise TableChanged(f"DEFAULT partition {default} was changed since it was read")
    subject = f"cannot move rows of DEFAULT partition {default} to {action}"
    if not facts.owned:
        raise InsufficientPrivilege(f"{subject}: role {user!r} is neither its owner nor a member of that role")
    if facts.hidden:
        raise InsufficientPrivilege(
            f"{subject}: its row security hides rows from role {user!r}; ALTER ROLE {quoted(user)} BYPASSRLS, or take "
            "FORCE away"
        )
    if facts.ruled:
        raise StatementRejected(
            f"{subject}: it has rules, which would change what is done; drop them, or move the rows by hand"
        )
    if publications:
        # What is inserted before ATTACH is no partition's yet: subscribers would see the rows deleted only.
        raise StatementRejected(
            f"{subject}: publication {publications[0]!r} would send subscribers only that they were deleted; "
            "move them by hand: delete them, make the partition, and insert them again"
        )


BOUNDS = "partwarden_bounds"
"""A constraint of the new table until it is attached, for which ATTACH need not read it."""

# A key that references a partitioned table stands there once more for each partition of either side.
REFERENCES = SQL("""
SELECT n.nspname || '.' || r.relname, r.relkind = 'p' AS partitioned, n.nspname AS schema, r.relname AS name,
       (SELECT string_agg(format('p.%I OPERATOR(%I.%s) f.%I', pa.attname, q.nspname, o.oprname, fa.attname), ' AND ')
        FROM unnest(k.confkey, k.conkey, k.conpfeqop) AS u(there, here, operator)
        JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.there
        JOIN pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = u.here
        JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace q ON q.oid = o.oprnamespace) AS condition
FROM pg_constraint k
JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE k.contype = 'f' AND k.confrelid IN ({parent}, {default})
  AND NOT EXISTS (SELECT FROM pg_constraint above
                  WHERE above.oid = k.conparentid AND above.confrelid IN ({parent}, {default}))
ORDER BY 1, k.oid
""")

ENABLE = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
"""``pg_trigger.tgenabled``, in the words of ALTER TABLE."""


class Move:
    """The statements of one move. ``columns`` are those that are written; ``all_columns`` has the generated ones, too.

    ``map`` is the table of what was copied.
    """

    columns: Sequence[str] = ()
    all_columns: Sequence[str] = ()

    def __init__(self, parent: Parent, default: Partition, action: DrainIntoPartition, key: str) -> None:
        self._parent, self._default_oid, self._action, self._key = parent, default.oid, action, key
        self._new, self._from = relation(action), relation(default)
        self.map = Identifier(parent.schema, f"partwarden_moving_{parent.oid}")

    def _in_range(self, table: str) -> Composed:
        return in_range(Identifier(table, self._key), self._action.bounds)

    def bound(self) -> Composed:
        """The new table will hold nothing but the range."""
        key = Identifier(self._key)
        return SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({} IS NOT NULL AND {})").format(
            self._new, Identifier(BOUNDS), key, in_range(key, self._action.bounds)
        )

    def remember(self) -> Composed:
        """The table of what was copied is ours alone."""
        return SQL("CREATE UNLOGGED TABLE {} (old tid, born xid, new tid, same boolean)").format(self.map)

    def copy(self) -> Composed:
        """Copies what is not remembered yet; ``same`` says whether the copy's text is that of the row.

        RETURNING gives rows in the order in which they go in. Were it ever another, ``same`` would show it.
        """
        alias = [Identifier(f"c{number}") for number in range(len(self.columns))]
        columns = SQL(", ").join(Identifier(name) for name in self.columns)
        return SQL(
            "WITH source AS MATERIALIZED (SELECT row_number() OVER () AS place, d.ctid AS old, d.xmin AS born, "
            "{hash_from} AS hash, {aliased} FROM ONLY {default} AS d WHERE {range} AND NOT EXISTS "
            "(SELECT FROM {map} AS m WHERE m.old = d.ctid AND m.born = d.xmin) LIMIT {limit}), "
            "put AS (INSERT INTO {new} AS t ({columns}) SELECT {alias} FROM source ORDER BY place "
            "RETURNING t.ctid AS new, {hash_to} AS hash), "
            "placed AS (SELECT row_number() OVER () AS place, new, hash FROM put) "
            "INSERT INTO {map} SELECT s.old, s.born, p.new, s.hash IS NOT DISTINCT FROM p.hash "
            "FROM source AS s JOIN placed AS p USING (place)"
        ).format(
            hash_from=self._hash("d"),
            hash_to=self._hash("t"),
            aliased=SQL(", ").join(
                SQL("{} AS {}").format(Identifier("d", name), short)
                for name, short in zip(self.columns, alias, strict=True)
            ),
            alias=SQL(", ").join(alias),
            columns=columns,
            default=self._from,
            map=self.map,
            new=self._new,
            range=self._in_range("d"),
            limit=self._action.max_rows + 1,
        )

    def forget_gone(self) -> Composed:
        """Takes the copies away whose rows were changed or deleted since."""
        return SQL(
            "WITH gone AS (DELETE FROM {map} AS m WHERE NOT EXISTS (SELECT FROM ONLY {default} AS d "
            "WHERE d.ctid = m.old AND d.xmin = m.born AND {range}) RETURNING m.new) "
            "DELETE FROM ONLY {new} AS n USING gone AS g WHERE n.ctid = g.new"
        ).format(map=self.map, default=self._from, new=self._new, range=self._in_range("d"))

    def delete(self) -> Composed:
        """Deletes from DEFAULT what was copied, and nothing else. One row: deleted, remembered, in the new table."""
        return SQL(
            "WITH moved AS (DELETE FROM ONLY {default} AS d USING {map} AS m "
            "WHERE d.ctid = m.old AND d.xmin = m.born RETURNING 1) "
            "SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM {map}), (SELECT count(*) FROM ONLY {new})"
        ).format(default=self._from, map=self.map, new=self._new)

    def references(self) -> Composed:
        """The foreign keys that point at the parent or at DEFAULT."""
        return REFERENCES.format(parent=self._parent.oid, default=self._default_oid)

    def referencing(self, key: Any, limit: int) -> Composed:
        """How many rows reference rows of the range by the key, a row of `REFERENCES`, counted up to ``limit``."""
        source = SQL("ONLY {default} AS p JOIN {only}{table} AS f ON {condition} WHERE {range}").format(
            default=self._from,
            only=SQL("" if key.partitioned else "ONLY "),
            table=Identifier(key.schema, key.name),
            condition=SQL(key.condition),  # quoted by the server's format()
            range=self._in_range("p"),
        )
        return count(source, limit)

    def switch(self, triggers: Sequence[Sequence[str]], on: bool) -> Iterable[Composed]:
        """Turns triggers of DEFAULT off, or on again as they were."""
        for name, enabled in triggers:
            yield SQL("ALTER TABLE ONLY {} {} TRIGGER {}").format(
                self._from, SQL(ENABLE[enabled] if on else "DISABLE"), Identifier(name)
            )

    def finish(self) -> Iterable[Composed]:
        """Leaves nothing behind that only the move needed."""
        yield SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(self._new, Identifier(BOUNDS))
        yield SQL("DROP TABLE {}").format(self.map)

    def _hash(self, table: str) -> Composed:
        columns = SQL(", ").join(Identifier(table, name) for name in self.all_columns)
        return SQL("hashtextextended(ROW({})::text, 0)").format(columns)
