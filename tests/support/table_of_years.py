"""The table of the guide and its policy, for tests of the command line."""

from lab.postgres import Database

POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: run}
spec:
  table: {name: run}
  key: submitted_at
"""


def make_table(database: Database) -> None:
    """Table run, by year of submitted_at, with 2024 and 2025."""
    database.execute(
        "CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);"
        "CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01 00:00Z') TO ('2025-01-01 00:00Z');"
        "CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01 00:00Z') TO ('2026-01-01 00:00Z')"
    )


def partitions(database: Database) -> list[str]:
    """The names of its partitions, sorted."""
    rows = database.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run'::regclass ORDER BY 1"
    )
    return [str(name) for (name,) in rows]
