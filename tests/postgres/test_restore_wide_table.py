"""Tables of hundreds of columns: text of all takes more than a page of 8 kB, in which PostgreSQL keeps a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.postgres import Database
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.restored_once import Restored
from partwarden.archive.restored_table import Source
from partwarden.errors import StatementRejected
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import Archived, archive, use_client


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


def bring_back(source: Source, database: Database) -> Restored:
    return restore(source, from_dsn(database.dsn), RestoreRequest(), lambda line: None)


def texts(database: Database) -> list[tuple[object, ...]]:
    """Every row of the table as text."""
    return sorted(database.query("SELECT ROW(t.*)::text FROM zoo_2020 t"), key=str)


Wide = tuple[Archived, list[tuple[object, ...]]]
MANY = [f"mood_{number}" for number in range(450)]
"""Columns of an enum, of which a page of 8 kB holds a row, and none if they are text."""


@pytest.fixture
def wide(pg_database: Database, tmp_path: Path) -> Wide:
    """Three rows of so many columns; their table is gone."""
    pg_database.execute(f"""
        CREATE TYPE mood AS ENUM ('neither calm nor mad'); CREATE TYPE other AS ENUM ('neither one nor two');
        CREATE DOMAIN small AS int;
        CREATE TABLE zoo_2020 (id int, {", ".join(f"{each} mood" for each in MANY)}, refused other, bound small,
                               twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO zoo_2020 SELECT n, {", ".join(["'neither calm nor mad'"] * len(MANY))}, 'neither one nor two', n
        FROM generate_series(1, 3) n""")
    rows, made = texts(pg_database), archive(pg_database, zoo.Specimen("", 3), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    return made, rows


def test_of_hundreds_of_columns_of_own_types_those_alone_are_text_that_are_refused(
    wide: Wide, pg_database: Database
) -> None:
    pg_database.execute("""ALTER TYPE other RENAME VALUE 'neither one nor two' TO 'three';
        ALTER DOMAIN small ADD CHECK (VALUE > 1)""")
    restored = bring_back(wide[0], pg_database)
    assert texts(pg_database) == wide[1]
    refused, bound = restored.left_off
    assert (refused.kind, refused.name, bound.kind, bound.name) == ("Type", "refused", "Type", "bound")
    assert "it is text, was public.other" in refused.reason
    assert "it is integer, was public.small" in bound.reason


def test_hundreds_of_columns_that_are_refused_come_back_as_an_enum_of_the_labels_that_they_had(
    wide: Wide, pg_database: Database
) -> None:
    pg_database.execute("ALTER TYPE mood RENAME VALUE 'neither calm nor mad' TO 'calm'")
    restored = bring_back(wide[0], pg_database)
    assert texts(pg_database) == wide[1]
    assert [each.name for each in restored.left_off] == MANY
    (made,) = restored.types
    assert made.startswith("public.mood_")
    assert all("mood_" in each.reason and "calm" in each.reason for each in restored.left_off)


def test_hundreds_of_columns_of_a_type_that_cannot_be_made_are_refused_with_the_way_out(
    pg_database: Database, tmp_path: Path
) -> None:
    def make_type(name: str) -> None:
        pg_database.execute(f"""
            CREATE TYPE {name};
            CREATE FUNCTION word_in(cstring) RETURNS {name} LANGUAGE internal IMMUTABLE STRICT AS 'int8in';
            CREATE FUNCTION word_out({name}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
            CREATE TYPE {name} (INPUT = word_in, OUTPUT = word_out, LIKE = int8)""")

    make_type("word")
    columns = [f"w{number}" for number in range(900)]
    pg_database.execute(f"""CREATE TABLE zoo_2020 ({", ".join(f"{each} word" for each in columns)});
        INSERT INTO zoo_2020 SELECT {", ".join(["'1234567890123456'"] * len(columns))}""")
    before, made = texts(pg_database), archive(pg_database, zoo.Specimen("", 1), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020; DROP TYPE word CASCADE")
    with pytest.raises(StatementRejected, match=r"too big.*create the types that are missing"):
        bring_back(made, pg_database)
    make_type("word")
    bring_back(made, pg_database)
    assert texts(pg_database) == before
