"""The table of the guide and its policy, for tests of the command line."""

from collections.abc import Iterable

from lab.postgres import Database

POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: run}
spec:
  table: {name: run}
  key: submitted_at
"""


def make_table(database: Database, years: Iterable[int] = (2024, 2025)) -> None:
    """Table run, by year of submitted_at, with partitions of these years."""
    database.execute(
        "CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)"
    )
    for year in years:
        ends = f"FROM ('{year}-01-01 00:00Z') TO ('{year + 1}-01-01 00:00Z')"
        database.execute(f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES {ends}")


def partitions(database: Database) -> list[str]:
    """The names of its partitions, sorted."""
    rows = database.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run'::regclass ORDER BY 1"
    )
    return [str(name) for (name,) in rows]
