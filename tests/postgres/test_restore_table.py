"""An archive restored as a separate table: equal in every row, or nothing is left."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lab.postgres import Database
from partwarden.archive.manifest import ArchiveManifest, Say
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.restored_once import Restored
from partwarden.archive.restored_table import Source
from partwarden.errors import (
    DatabaseUnreachable,
    InsufficientPrivilege,
    NameTaken,
    PartwardenError,
    RestoredDiffers,
    StatementRejected,
    TableBusy,
)
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import Archived, archive, contents, quoted, use_client
from support.meanwhile import kill_others, relations


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


def bring_back(source: Source, database: Database, say: Say = lambda line: None, **wish: object) -> Restored:
    return restore(source, from_dsn(database.dsn), RestoreRequest(**wish), say)  # type: ignore[arg-type]


@dataclass
class Disturbed:
    """An archive, and what happens after each piece of its rows was read; a reader gets other pieces then."""

    archived: Archived
    during: Callable[[bytes], bytes]
    changed: Callable[[ArchiveManifest], ArchiveManifest] = lambda manifest: manifest

    @property
    def manifest(self) -> ArchiveManifest:
        return self.changed(self.archived.manifest)

    def check(self) -> None:
        self.archived.check()

    @contextmanager
    def rows(self, generated: Sequence[str] = ()) -> Iterator[Iterator[bytes]]:
        with self.archived.rows(generated) as rows:
            yield (self.during(each) for each in rows)


def texts(database: Database, table: str) -> list[tuple[object, ...]]:
    """Every value as text, by plain SQL, sorted."""
    columns = database.query(
        "SELECT 'concat(' || quote_ident(attname) || ')' FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname",
        table,
    )
    chosen = ", ".join(str(each) for (each,) in columns)
    return sorted(database.query(f"SELECT {chosen} FROM {table}"), key=str)


@pytest.fixture
def plain(pg_database: Database, tmp_path: Path) -> Archived:
    """Twelve rows; their table is gone."""
    made = archive(pg_database, zoo.build(pg_database, "by date"), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    return made


@pytest.fixture
def new_tablespace(pg_database: Database) -> Iterator[str]:
    """The name of one that the superuser alone may use, for tables that the test drops."""
    name = f"space_{secrets.token_hex(4)}"
    with psycopg.connect(pg_database.dsn, autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {name} LOCATION ''".encode())
        yield name
        connection.execute(f"DROP TABLESPACE {name}".encode())


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_type_is_restored_equal_also_into_a_newer_major(
    database: Database, pg_database: Database, tmp_path: Path, name: str
) -> None:
    if name not in zoo.living(database.server.major):
        return
    specimen = zoo.build(database, name)
    found = archive(database, specimen, tmp_path)
    if specimen.schema != "public":
        pg_database.execute(f"CREATE SCHEMA {quoted(specimen.schema)}")
    restored = bring_back(found, pg_database)
    assert (restored.schema, restored.name, restored.rows) == (specimen.schema, specimen.partition, specimen.rows)
    assert contents(pg_database, specimen) == contents(database, specimen)


def test_a_restored_table_gets_the_requested_name(plain: Archived, pg_database: Database) -> None:
    pg_database.execute('CREATE SCHEMA "Old things"')
    bring_back(plain, pg_database, schema="Old things", name='the "year" 2020')
    assert pg_database.query('SELECT count(*) FROM "Old things"."the ""year"" 2020"') == [(12,)]
    ((comment,),) = pg_database.query("""SELECT obj_description('"Old things"."the ""year"" 2020"'::regclass)""")
    assert comment == f"restored from archive {plain.manifest.id} of public.zoo_2020"


def test_what_exists_is_never_loaded_over(plain: Archived, pg_database: Database) -> None:
    for what in (
        "CREATE TABLE zoo_2020 (mine int)",
        "CREATE VIEW zoo_2020 AS SELECT 1",
        "CREATE TYPE zoo_2020 AS (a int)",
    ):
        pg_database.execute(what)
        before = relations(pg_database)
        with pytest.raises(NameTaken, match=r"public\.zoo_2020 exists already.*--as"):
            bring_back(plain, pg_database)
        assert relations(pg_database) == before
        pg_database.execute(f"DROP {what.split()[1]} zoo_2020")


def test_a_table_created_meanwhile_is_never_loaded_over(plain: Archived, pg_database: Database) -> None:
    def make(line: str) -> None:
        if line.startswith("checking"):
            pg_database.execute("CREATE TABLE zoo_2020 (mine int)")

    with pytest.raises(NameTaken):
        bring_back(plain, pg_database, make)
    assert pg_database.query("SELECT count(*) FROM zoo_2020") == [(0,)]


STEPS = ("checking", "loading", "comparing")


@pytest.mark.parametrize("step", STEPS)
def test_a_connection_that_is_lost_leaves_nothing(plain: Archived, pg_database: Database, step: str) -> None:
    before = relations(pg_database)

    def lose(line: str) -> None:
        if line.startswith(step):
            kill_others(pg_database)

    if step == "checking":
        # Nothing is connected while the archive is read.
        bring_back(plain, pg_database, lose)
        return
    with pytest.raises(DatabaseUnreachable):
        bring_back(plain, pg_database, lose)
    assert relations(pg_database) == before


def test_a_connection_lost_between_two_rows_leaves_nothing(plain: Archived, pg_database: Database) -> None:
    before = relations(pg_database)

    def lose(rows: bytes) -> bytes:
        kill_others(pg_database)
        return rows

    with pytest.raises(DatabaseUnreachable):
        bring_back(Disturbed(plain, lose), pg_database)
    assert relations(pg_database) == before


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_leaves_nothing(plain: Archived, pg_database: Database, step: str) -> None:
    before = relations(pg_database)

    def interrupt(line: str) -> None:
        if line.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_back(plain, pg_database, interrupt)
    assert relations(pg_database) == before


class Broken(PartwardenError):
    """What storage says in the middle."""


def _breaks(rows: bytes) -> bytes:
    raise Broken("the object was changed")


OTHERS: dict[str, tuple[Callable[[bytes], bytes], type[Exception]]] = {
    "storage ends in the middle": (_breaks, Broken),
    "a row less": (lambda rows: rows.split(b"\n", 1)[1], RestoredDiffers),
    "a row twice": (lambda rows: rows + rows.split(b"\n", 1)[0] + b"\n", RestoredDiffers),
    "another value": (lambda rows: rows.replace(b"\t7\n", b"\t8\n"), RestoredDiffers),
    "no value at all": (lambda rows: rows.replace(b"\t7\n", b"\tseven\n"), StatementRejected),
    "a NULL": (lambda rows: rows.replace(b"\t7\n", b"\t\\N\n"), RestoredDiffers),
}


@pytest.mark.parametrize("what", OTHERS)
def test_rows_that_differ_from_the_archived_ones_leave_nothing(
    plain: Archived, pg_database: Database, what: str
) -> None:
    before = relations(pg_database)
    change, error = OTHERS[what]
    with pytest.raises(error):
        bring_back(Disturbed(plain, change), pg_database)
    assert relations(pg_database) == before


def test_a_type_that_has_changed_since_leaves_text_and_is_named(pg_database: Database, tmp_path: Path) -> None:
    specimen = zoo.build(pg_database, "own types")
    before = texts(pg_database, specimen.partition)
    found = archive(pg_database, specimen, tmp_path)
    pg_database.execute("DROP TABLE zoo; ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'")
    restored = bring_back(found, pg_database)
    assert texts(pg_database, specimen.partition) == before
    left_off = {each.name: each for each in restored.left_off}
    assert left_off
    assert all(each.kind == "Type" and "mood" in each.reason for each in left_off.values())
    others = pg_database.query(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'zoo_2020'::regclass AND attnum > 0 "
        "AND atttypid <> 'text'::regtype"
    )
    assert {str(name) for (name,) in others}.isdisjoint(left_off)
    assert others


def test_types_that_are_missing_are_made_with_the_table_or_not_at_all(pg_database: Database, tmp_path: Path) -> None:
    found = archive(pg_database, zoo.build(pg_database, "own types"), tmp_path)
    pg_database.execute("DROP SCHEMA public CASCADE; DROP SCHEMA odd CASCADE; CREATE SCHEMA public")
    with pytest.raises(Broken):
        bring_back(Disturbed(found, _breaks), pg_database)
    assert pg_database.query("SELECT FROM pg_namespace WHERE nspname = 'odd'") == []
    restored = bring_back(found, pg_database)
    assert restored.types == tuple(each.name for each in found.manifest.types)


def test_a_type_that_cannot_be_made_leaves_text_and_is_named(pg_database: Database, tmp_path: Path) -> None:
    pg_database.execute("""
        CREATE TYPE steps;
        CREATE FUNCTION canon(steps) RETURNS steps LANGUAGE internal IMMUTABLE AS 'int4range_canonical';
        CREATE TYPE steps AS RANGE (subtype = int, canonical = canon);
        CREATE TABLE zoo (at date NOT NULL, s steps) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO zoo VALUES ('2020-01-01', '[1,3]')""")
    found = archive(pg_database, zoo.Specimen("", rows=1), tmp_path)
    pg_database.execute("DROP TABLE zoo; DROP TYPE steps CASCADE")
    ((left_off),) = bring_back(found, pg_database).left_off
    assert (left_off.kind, left_off.name) == ("Type", "s")
    assert "create it first" in left_off.reason
    assert pg_database.query("SELECT s FROM zoo_2020") == [("[1,4)",)]


def test_a_missing_collation_is_left_out_and_named(pg_database: Database, tmp_path: Path) -> None:
    pg_database.execute("""CREATE COLLATION special (provider = libc, locale = 'C');
        CREATE TABLE zoo (at date NOT NULL, t text COLLATE special) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        INSERT INTO zoo VALUES ('2020-01-01', 'x')""")
    specimen = zoo.Specimen("", rows=1, bounds=("2020-01-01", "2021-01-01"))
    found = archive(pg_database, specimen, tmp_path)
    pg_database.execute("DROP TABLE zoo; DROP COLLATION special")
    (left_off,) = bring_back(found, pg_database).left_off
    assert (left_off.kind, left_off.name) == ("Collation", "t")
    assert "public.special" in left_off.reason
    assert pg_database.query("SELECT t FROM zoo_2020") == [("x",)]


def test_a_role_that_may_not_create_tables_is_refused(plain: Archived, pg_database: Database) -> None:
    role = pg_database.new_role()
    pg_database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(InsufficientPrivilege, match="schema public"):
        restore(plain, from_dsn(role.dsn), RestoreRequest(), lambda line: None)


def test_a_missing_schema_is_reported(plain: Archived, pg_database: Database) -> None:
    with pytest.raises(StatementRejected, match="schema 'nowhere' does not exist"):
        bring_back(plain, pg_database, schema="nowhere")


def test_of_two_restores_at_once_one_is_refused(plain: Archived, pg_database: Database) -> None:
    refusals: list[PartwardenError] = []

    def second(line: str) -> None:
        if line.startswith("comparing"):
            with pytest.raises(TableBusy) as caught:
                bring_back(plain, pg_database)
            refusals.append(caught.value)

    bring_back(plain, pg_database, second)
    assert len(refusals) == 1
    assert pg_database.query("SELECT count(*) FROM zoo_2020") == [(12,)]


def test_a_column_whose_type_the_role_may_not_use_comes_back_as_text(pg_database: Database, tmp_path: Path) -> None:
    role = pg_database.new_role()
    pg_database.execute(f"""
        GRANT CREATE, USAGE ON SCHEMA public TO {role.name};
        CREATE SCHEMA hidden; CREATE TYPE hidden.mood AS ENUM ('calm', 'wild');
        CREATE TABLE zoo_2020 (id int, mood hidden.mood); INSERT INTO zoo_2020 VALUES (1, 'calm'), (2, 'wild');
        ALTER TABLE zoo_2020 OWNER TO {role.name}""")
    made = archive(pg_database, zoo.Specimen("", 2), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    restored = restore(made, from_dsn(role.dsn), RestoreRequest(), lambda line: None)
    assert [(each.kind, each.name) for each in restored.left_off] == [("Type", "mood")]
    assert "permission denied for schema hidden" in restored.left_off[0].reason
    assert pg_database.query("SELECT id, mood FROM zoo_2020 ORDER BY id") == [(1, "calm"), (2, "wild")]


def test_a_default_tablespace_that_the_role_may_not_use_is_not_used(
    plain: Archived, pg_database: Database, new_tablespace: str
) -> None:
    role = pg_database.new_role()
    pg_database.execute(f"""GRANT CREATE ON SCHEMA public TO {role.name};
        ALTER DATABASE {pg_database.name} SET default_tablespace = {new_tablespace}""")
    said: list[str] = []
    restore(plain, from_dsn(role.dsn), RestoreRequest(name="first"), said.append)
    assert f"role '{role.name}' may not create in tablespace '{new_tablespace}': using that of the database" in said
    pg_database.execute(f"GRANT CREATE ON TABLESPACE {new_tablespace} TO {role.name}")
    restore(plain, from_dsn(role.dsn), RestoreRequest(name="second"), said.append)
    where = "SELECT t.tablespace FROM pg_tables t WHERE t.tablename IN ('first', 'second') ORDER BY t.tablename"
    assert pg_database.query(where) == [(None,), (new_tablespace,)]
    pg_database.execute("DROP TABLE second")
