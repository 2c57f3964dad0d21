"""What a manifest says of columns and types is enough to make them again elsewhere."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL, Identifier

from lab.postgres import Database, Server
from partwarden.archive.manifest import Attribute, TypeKind
from partwarden.archive.table_lookup import Description, describe
from partwarden.archive.table_schema import TableColumn, Types, create_table, expression
from partwarden.postgres.connection import pinned, run, session
from partwarden.postgres.conninfo import from_dsn
from support import zoo

COLLATED = """
    CREATE DOMAIN bytewise AS text COLLATE "C";
    CREATE DOMAIN filled AS text NOT NULL DEFAULT 'x' CHECK (VALUE <> '{a''b}');
    CREATE TYPE pair AS (a text COLLATE "C", b bytewise);
    CREATE TYPE words AS RANGE (subtype = text, collation = "C", subtype_opclass = text_pattern_ops);
    CREATE TABLE zoo_2020 (a text COLLATE "C", b bytewise, c filled, d pair, e words, f int GENERATED ALWAYS AS
      (length(a) + 1) STORED)
"""


def described(database: Database, table: str = "zoo_2020") -> Description:
    ((oid,),) = database.query(f"SELECT '{table}'::regclass::oid::int8")
    assert isinstance(oid, int)
    with session(from_dsn(database.dsn)) as connection, connection.transaction():
        run(connection, pinned("1s", "10s"))
        return describe(connection, oid)


def _made_again(found: Description, elsewhere: Database) -> Description:
    """From its fields alone, as a restore does it."""
    elsewhere.execute("CREATE SCHEMA IF NOT EXISTS odd")
    with session(from_dsn(elsewhere.dsn)) as connection, connection.transaction():
        run(connection, pinned("1s", "10s"))
        types = Types(connection, found.types)
        types.make()
        assert types.missing == {}
        columns = [
            TableColumn(
                each.name,
                types.sql(each),
                SQL(each.collation) if each.collation else None,
                expression(each.expression) if each.generated else None,
            )
            for each in found.columns
        ]
        run(connection, create_table(Identifier("public", "zoo_2020"), columns))
    for each in found.columns:
        if each.not_null:
            elsewhere.execute(f'ALTER TABLE zoo_2020 ALTER "{each.name}" SET NOT NULL')
    return described(elsewhere)


@pytest.mark.parametrize("name", ["own types", "arrays", "generated", "dropped columns"])
def test_a_specimen_can_be_made_again_from_its_description(database: Database, server: Server, name: str) -> None:
    zoo.build(database, name)
    found = described(database)
    with server.new_database() as elsewhere:
        assert _made_again(found, elsewhere) == found


def test_a_description_holds_collations_and_constraints_of_types(database: Database, server: Server) -> None:
    database.execute(COLLATED)
    found = described(database)
    with server.new_database() as elsewhere:
        assert _made_again(found, elsewhere) == found
    assert [each.name for each in found.types] == ["public.bytewise", "public.filled", "public.pair", "public.words"]


WITHOUT_LENGTH = """
    CREATE DOMAIN padded AS bpchar;
    CREATE TYPE padding AS (a bpchar, b pg_catalog."bit", c character(3));
    CREATE TABLE zoo_2020 (a bpchar, b pg_catalog."bit", c bpchar[], d padded, e padding, f character(1), g bit(1))
"""


def test_a_type_without_a_length_is_not_one_of_the_length_1(pg_database: Database, pg: Server) -> None:
    pg_database.execute(WITHOUT_LENGTH)
    found = described(pg_database)
    with pg.new_database() as elsewhere:
        assert _made_again(found, elsewhere) == found


def test_types_of_extensions_are_made_with_what_they_require_and_found_where_they_moved(
    pg_database: Database, pg: Server
) -> None:
    """Also where the table has no column but an array of such a type."""
    pg_database.execute("CREATE EXTENSION earthdistance CASCADE; CREATE EXTENSION ltree")
    pg_database.execute("CREATE TABLE zoo_2020 (a earth, b ltree[])")
    found = described(pg_database)
    with pg.new_database() as elsewhere:
        assert _made_again(found, elsewhere) == found
    pg_database.execute("CREATE SCHEMA moved; ALTER EXTENSION ltree SET SCHEMA moved")
    with session(from_dsn(pg_database.dsn)) as connection, connection.transaction():
        run(connection, pinned("1s", "10s"))
        types = Types(connection, found.types)
        types.make()
        assert types.missing == {}
        assert [types.sql(each).as_string() for each in found.columns] == ["public.earth", "moved.ltree[]"]


def test_types_come_after_what_they_are_made_from(pg_database: Database) -> None:
    zoo.build(pg_database, "own types")
    names = [each.name for each in described(pg_database).types]
    assert names.index("public.place") < names.index('odd."A type"')
    assert names.index("odd.two") < names.index("odd.code")
    assert len(names) == len(set(names))


def test_a_type_with_its_own_function_must_exist_already(pg_database: Database) -> None:
    pg_database.execute("""
        CREATE TYPE steps;
        CREATE FUNCTION canon(steps) RETURNS steps LANGUAGE internal IMMUTABLE AS 'int4range_canonical';
        CREATE TYPE steps AS RANGE (subtype = int, canonical = canon);
        CREATE TABLE zoo_2020 (a steps)""")
    assert [(each.name, each.kind) for each in described(pg_database).types] == [("public.steps", TypeKind.OTHER)]


def test_a_type_in_a_schema_that_the_role_may_not_use_counts_as_missing(database: Database) -> None:
    role = database.new_role()
    database.execute("CREATE SCHEMA hidden; CREATE TYPE hidden.mood AS ENUM ('calm')")
    with session(from_dsn(role.dsn)) as connection, connection.transaction():
        types = Types(connection, [])
        assert types.find(Attribute(type="hidden.mood")) is None
        # The transaction goes on.
        assert types.find(Attribute(type="bigint")) == SQL("bigint")
