"""The specimens of archive tests have the rows and types that they declare."""

from __future__ import annotations

import psycopg
import pytest

from lab.postgres import Database
from support import zoo

INTERNAL = {
    *("pg_node_tree", "gtsvector", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
    *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
}
"""No value of these can be written."""
BUILT_IN = """
SELECT format_type(oid, NULL) FROM pg_type
WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A' AND oid < 16384
"""
OF_THE_ZOO = """
SELECT DISTINCT format_type(a.atttypid, NULL) FROM pg_attribute a
WHERE a.attrelid = 'zoo_2020'::regclass AND a.attnum > 0
"""


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_specimen_has_the_rows_that_it_says(database: Database, name: str) -> None:
    if name not in zoo.living(database.server.major):
        with pytest.raises(psycopg.Error):
            zoo.build(database, name)
        return
    specimen = zoo.build(database, name)
    schema, table = (part.replace('"', '""') for part in (specimen.schema, specimen.partition))
    assert database.query(f'SELECT count(*) FROM "{schema}"."{table}"') == [(specimen.rows,)]


def test_every_built_in_type_is_there(database: Database) -> None:
    present = set()
    for name in ("scalars", "ranges"):
        zoo.build(database, name)
        present |= {each for (each,) in database.query(OF_THE_ZOO)}
        database.execute("DROP TABLE zoo")
    assert {each for (each,) in database.query(BUILT_IN)} - INTERNAL <= present
