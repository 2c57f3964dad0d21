"""What plain pg_restore makes of an archive, as docs/how-to/restore.md says it, without Partwarden."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.postgres import Database, Server
from partwarden.archive import pgdump
from partwarden.archive.manifest import DATA, GENERATED, MANIFEST
from partwarden.archive.verify import Archive
from partwarden.cli.main import main
from partwarden.postgres.settings import TEXT_SETTINGS, as_options
from support.archived import archive, use_client
from support.zoo import Specimen

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "restore.md"
SETUP = """
    CREATE FUNCTION slug(t text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT lower(t)$$;
    CREATE TABLE zoo (at timestamptz NOT NULL, id int, tags text[], span interval, price money,
      t text, s text GENERATED ALWAYS AS (public.slug(t)) STORED, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
    INSERT INTO zoo (at, id, tags, span, price, t) SELECT '2020-05-05Z', n, ARRAY['a', NULL, 'NULL'],
      '-1 year -2 mons +3 days -04:05:06', 12.34, 'A B' || n FROM generate_series(1, 10) n;
    CREATE OR REPLACE FUNCTION slug(t text) RETURNS text IMMUTABLE LANGUAGE sql
      AS $$SELECT replace(lower(t), ' ', '-')$$
"""
VALUES = "SELECT id, at::text, tags::text, span::text, price::numeric, t FROM {} ORDER BY id"
READS_OTHERWISE = {
    "array_nulls": "off",
    "IntervalStyle": "sql_standard",
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Tokyo",
}


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@pytest.fixture
def made(database: Database, tmp_path: Path) -> Archive:
    database.execute(SETUP)
    return archive(database, Specimen("", rows=10), tmp_path)


def folder(made: Archive) -> Path:
    return Path(made.url.removeprefix("file://"))


def pg_restore(dsn: str, made: Archive, options: str | None, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if options is not None:
        environment["PGOPTIONS"] = options
    command = [pgdump.find("pg_restore"), "--no-owner", *more, "--dbname", dsn, str(folder(made) / DATA)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_page_and_the_manifest_name_the_pinned_settings(made: Archive) -> None:
    (shown,) = re.findall(r"^\$ export PGOPTIONS='(.+)'$", PAGE.read_text(), re.MULTILINE)
    assert shown == as_options()
    assert json.loads((folder(made) / MANIFEST).read_text())["settings"] == TEXT_SETTINGS
    listed = CliRunner().invoke(main, ["restore", "--manifest", made.url, "--list"], catch_exceptions=False)
    assert f"PGOPTIONS='{as_options()}'" in listed.stdout


def test_it_gives_the_rows_and_the_indexes_but_no_attach_and_computes_what_is_generated(
    database: Database, server: Server, made: Archive
) -> None:
    before = database.query(VALUES.format("zoo_2020"))
    with server.new_database() as other:
        for name, value in READS_OTHERWISE.items():
            other.execute(f"ALTER DATABASE {other.name} SET {name} = '{value}'")
        other.execute(SETUP.split(";")[0])
        done = pg_restore(other.dsn, made, as_options())
        assert done.returncode == 1
        failed = re.findall(r"^Command was: (?:ALTER|CREATE|COPY).*$", done.stderr, re.MULTILINE)
        assert [re.sub(r"ALTER (TABLE ONLY|INDEX) (\S+) .*", r"\2", each) for each in failed] == [
            "Command was: public.zoo",
            "Command was: public.zoo_pkey",
        ]
        for setting in READS_OTHERWISE:
            other.execute(f"ALTER DATABASE {other.name} RESET {setting}")
        assert other.query(VALUES.format("zoo_2020")) == before
        assert other.query("SELECT indisprimary FROM pg_index WHERE indrelid = 'zoo_2020'::regclass") == [(True,)]
        # The function of the empty database is the old one here: what is generated is what it gives.
        assert other.query("SELECT s FROM zoo_2020 WHERE id = 1") == [("a b1",)]


def test_without_the_settings_values_may_be_read_as_others(server: Server, database: Database, made: Archive) -> None:
    before = database.query(VALUES.format("zoo_2020"))
    with server.new_database() as other:
        other.execute(f"ALTER DATABASE {other.name} SET array_nulls = off")
        other.execute(SETUP.split(";")[0])
        pg_restore(other.dsn, made, None)
        assert other.query(VALUES.format("zoo_2020")) != before


def test_the_values_of_generated_columns_are_beside_it(database: Database, made: Archive) -> None:
    """A line for each row, in the order of the rows in the dump."""
    lines = gzip.decompress((folder(made) / GENERATED).read_bytes()).decode().splitlines()
    assert lines == [str(value) for (value,) in database.query("SELECT s FROM ONLY zoo_2020 ORDER BY ctid")]
    assert lines[0] == "a b1"
    assert database.query("SELECT public.slug(t) FROM zoo_2020 WHERE id = 1") == [("a-b1",)]
