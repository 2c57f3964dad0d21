"""What the page on queries of archives says: its SQL counts the rows of a bucket's archives, and what was archived
without Parquet stays as it is."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import duckdb_extension_httpfs
import pytest

from lab.postgres import Database
from lab.s3 import S3Server
from partwarden.api.destination import Destination
from partwarden.api.retention import Format
from partwarden.archive import create
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.postgres.conninfo import from_dsn
from support.archived import use_client
from support.places import in_folder, on_s3

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "query-archives.md").read_text()
TABLES = """
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z');
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
INSERT INTO run SELECT n, '2019-12-31Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, 100) n;
"""


def order(name: str, destination: Destination, *formats: Format) -> JobSpec:
    table = TableName(schema_="public", name=name, oid=0)
    return JobSpec(task=Task.ARCHIVE, id=name, partition=table, destination=destination, formats=formats)


def test_the_years_of_a_bucket_are_counted_as_the_page_says(
    pg_database: Database, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    pg_database.execute(TABLES)
    place = on_s3(s3, bucket)
    for name in ("run_2019", "run_2020"):
        wanted = order(name, place.destination(), *Format)
        create.archive(wanted, from_dsn(pg_database.dsn), place.store(), lambda line: None)
    (statements,) = re.findall(r"```sql\n-- s3\.sql\n(.*?)```", PAGE, re.DOTALL)
    (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension")
    # DuckDB fetches its extensions from the network, which tests do without.
    for page, here in (
        ("INSTALL httpfs;\nLOAD httpfs;", f"LOAD '{extension}';"),
        ("KEY_ID 'key', SECRET 'secret'", f"KEY_ID '{s3.access_key}', SECRET '{s3.secret_key}'"),
        (
            "REGION 'eu-central-1'",
            f"REGION '{s3.region}', ENDPOINT '127.0.0.1:{s3.port}', URL_STYLE 'path', USE_SSL false",
        ),
        ("s3://archives/production/", f"s3://{bucket}/"),
    ):
        assert page in statements
        statements = statements.replace(page, here)
    expected = pg_database.query("SELECT extract(year FROM at AT TIME ZONE 'UTC')::int, count(*) FROM run GROUP BY 1")
    with duckdb.connect() as connection:
        assert sorted(connection.execute(statements).fetchall()) == sorted(expected)


def test_what_was_archived_without_parquet_is_found_again_as_it_is(
    pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a report that was lost, and an edit of the policy since."""
    use_client(monkeypatch)
    pg_database.execute(TABLES)
    place = in_folder(tmp_path)

    def made(*formats: Format) -> Report:
        wanted = order("run_2019", place.destination(), *formats)
        return create.archive(wanted, from_dsn(pg_database.dsn), place.store(), lambda line: None)

    first = made(Format.DUMP)
    again = made(*Format)
    assert (again.location, again.manifest_sha256) == (first.location, first.manifest_sha256)
    assert first.formats == again.formats == (Format.DUMP,)
    assert not list(tmp_path.rglob("*.parquet"))
