"""A new partition has what its parent cannot hold from the newest of its siblings."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from lab.postgres import Database, Server
from support.meanwhile import findings, keep, reasons

RUN = """
    CREATE TABLE run (at date, note text) PARTITION BY RANGE (at);
    CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') WITH (fillfactor = 50);
    CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
"""
IDENTITY = "SELECT relreplident::text FROM pg_class WHERE relname = 'run_2026'"


def test_storage_parameters_are_those_of_the_newest_sibling(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE run_2025 SET
        (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false)""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    options = """SELECT c.reloptions, t.reloptions FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relname = 'run_2026'"""
    assert database.query(options) == [
        (["fillfactor=70", "autovacuum_vacuum_scale_factor=0.05"], ["autovacuum_enabled=false"])
    ]


UNLOGGED = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u' ORDER BY 1"


def test_beside_unlogged_siblings_a_partition_is_unlogged(database: Database) -> None:
    database.execute(f"{RUN} ALTER TABLE run_2025 SET UNLOGGED")
    assert reasons(keep(database.dsn, premake=1, defaultPartition={"ensure": True})) == ["created"] * 3
    assert [name for (name,) in database.query(UNLOGGED)] == ["run_2025", "run_2026", "run_2027", "run_default"]
    database.execute("ALTER TABLE run_2027 SET LOGGED")
    assert reasons(keep(database.dsn, premake=2, defaultPartition={"ensure": True})) == ["created"]
    assert [name for (name,) in database.query(UNLOGGED)] == ["run_2025", "run_2026", "run_default"]


@pytest.mark.parametrize("default", ["LOGGED", "UNLOGGED"])
def test_rows_do_not_move_from_a_logged_default_to_an_unlogged_partition(database: Database, default: str) -> None:
    """A crash would take them, which leaves them alone where they are."""
    database.execute(f"""{RUN} ALTER TABLE run_2025 SET UNLOGGED; CREATE TABLE rest PARTITION OF run DEFAULT;
        ALTER TABLE rest SET {default}; INSERT INTO run VALUES ('2026-05-05', 'here')""")
    assert reasons(keep(database.dsn, premake=0, defaultPartition={"drain": "Auto"})) == ["created"]
    assert database.query("SELECT tableoid::regclass::text FROM run") == [("run_2026",)]
    assert (("run_2026",) in database.query(UNLOGGED)) is (default == "UNLOGGED")


@pytest.mark.parametrize(
    ("parent", "sibling", "expected"),
    [("DEFAULT", "DEFAULT", "d"), ("FULL", "DEFAULT", "f"), ("NOTHING", "FULL", "n"), ("DEFAULT", "FULL", "f")],
)
def test_replica_identity_is_the_parents_or_else_the_siblings(
    database: Database, parent: str, sibling: str, expected: str
) -> None:
    database.execute(f"""{RUN} ALTER TABLE ONLY run REPLICA IDENTITY {parent};
        ALTER TABLE run_2025 REPLICA IDENTITY {sibling}""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    assert database.query(IDENTITY) == [(expected,)]


def test_what_is_published_can_be_changed_in_the_new_partition(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE ONLY run REPLICA IDENTITY FULL;
        ALTER TABLE run_2025 REPLICA IDENTITY FULL; CREATE PUBLICATION runs FOR TABLE run""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO run VALUES ('2026-02-01', 'a')")
        assert connection.execute("UPDATE run SET note = 'b' WHERE at = '2026-02-01'").rowcount == 1
        assert connection.execute("DELETE FROM run WHERE at = '2026-02-01'").rowcount == 1


def test_replica_identity_by_an_index_is_by_the_partitions_own(database: Database) -> None:
    database.execute("""
        CREATE TABLE run (id int NOT NULL, at date NOT NULL, note text) PARTITION BY RANGE (at);
        CREATE UNIQUE INDEX "By Id" ON run (id, at);
        CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
        ALTER TABLE run_2025 REPLICA IDENTITY USING INDEX run_2025_id_at_idx""")
    assert reasons(keep(database.dsn, premake=1)) == ["created"] * 2
    identified = """SELECT x.indrelid::regclass::text, i.inhparent::regclass::text
        FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indexrelid WHERE x.indisreplident ORDER BY 1"""
    assert database.query(identified) == [(f"run_{year}", '"By Id"') for year in (2025, 2026, 2027)]
    assert database.query(IDENTITY) == [("i",)]


def test_an_index_that_only_the_sibling_has_identifies_nothing_new(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE run_2025 ALTER note SET NOT NULL;
        CREATE UNIQUE INDEX own ON run_2025 (note); ALTER TABLE run_2025 REPLICA IDENTITY USING INDEX own""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    assert database.query(IDENTITY) == [("d",)]


def test_a_new_partition_has_the_statistics_settings_of_columns(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE run_2025 ALTER note SET STATISTICS 500;
        ALTER TABLE run_2025 ALTER note SET (n_distinct = -0.5); ALTER TABLE ONLY run ALTER at SET STATISTICS 10""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    reported = """SELECT attname::text, attstattarget::int, attoptions FROM pg_attribute
        WHERE attrelid = 'run_2026'::regclass AND attnum > 0 ORDER BY 1"""
    assert database.query(reported) == [("at", 10, None), ("note", 500, ["n_distinct=-0.5"])]


def test_policies_are_the_siblings_and_in_force_as_the_parent_says(database: Database) -> None:
    role = database.new_role()
    database.execute(f"""{RUN}
        ALTER TABLE run ENABLE ROW LEVEL SECURITY; ALTER TABLE run_2025 ENABLE ROW LEVEL SECURITY;
        CREATE POLICY "Mine Only" ON run_2025 FOR SELECT TO {role.name} USING (note = CURRENT_USER);
        CREATE POLICY strict ON run_2025 AS RESTRICTIVE FOR ALL TO PUBLIC
            USING (note <> 'it''s a "secret" %') WITH CHECK (note IS NOT NULL AND length(note) < 100);
        CREATE POLICY writing ON run_2025 FOR INSERT TO {role.name}, {database.new_role().name} WITH CHECK (true);
        CREATE POLICY changing ON run_2025 FOR UPDATE USING (note IN (SELECT note FROM run_2024));
        CREATE POLICY dropping ON run_2025 FOR DELETE USING (false);
        GRANT SELECT ON run, run_2024, run_2025 TO {role.name}""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    policies = """SELECT policyname, permissive, roles, cmd, qual, with_check FROM pg_policies
        WHERE tablename = %s ORDER BY 1"""
    with psycopg.connect(database.dsn) as connection:
        expected = connection.execute(policies, ["run_2025"]).fetchall()
        assert len(expected) == 5
        assert connection.execute(policies, ["run_2026"]).fetchall() == expected
        connection.execute("INSERT INTO run VALUES ('2026-02-01', 'other'), ('2026-02-01', %s)", [role.name])
    with psycopg.connect(role.dsn) as connection:
        assert connection.execute("SELECT note FROM run_2026").fetchall() == [(role.name,)]


def test_triggers_of_rows_are_the_parents_in_the_new_partition(database: Database) -> None:
    database.execute(f"""{RUN}
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.note := upper(NEW.note); RETURN NEW; END $$;
        CREATE TRIGGER shouting BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION shout();""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    database.execute("INSERT INTO run VALUES ('2026-02-01', 'a')")
    assert database.query("SELECT note FROM run_2026") == [("A",)]


@pytest.mark.parametrize("through_root", ["true", "false"])
def test_a_publication_of_the_parent_sends_rows_of_the_new_partition(
    new_server: Callable[..., Server], through_root: str
) -> None:
    server = new_server(options={"wal_level": "logical", "synchronous_commit": "on"})
    with server.new_database() as database:
        database.execute(f"""CREATE TABLE run (at date PRIMARY KEY, note text) PARTITION BY RANGE (at);
            CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
            CREATE PUBLICATION runs FOR TABLE run WITH (publish_via_partition_root = {through_root})""")
        database.query("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
        try:
            assert reasons(keep(database.dsn, premake=0)) == ["created"]
            for change in (
                "INSERT INTO run VALUES ('2026-02-01', 'a')",
                "UPDATE run SET note = 'b'",
                "DELETE FROM run",
            ):
                database.execute(change)
            sent = database.query(
                "SELECT convert_from(substr(data, 1, 1), 'UTF8') FROM pg_logical_slot_peek_binary_changes('slot', "
                "NULL, NULL, 'proto_version', '1', 'publication_names', 'runs')"
            )
            assert [kind for (kind,) in sent if str(kind) in "IUD"] == ["I", "U", "D"]
        finally:
            database.query("SELECT pg_drop_replication_slot('slot')")


def test_a_sibling_that_differs_from_the_parent_is_reported_once_for_each_property(database: Database) -> None:
    owner = database.new_role().name
    database.execute(f"""{RUN}
        ALTER TABLE run ENABLE ROW LEVEL SECURITY; ALTER TABLE run_2025 ENABLE ROW LEVEL SECURITY;
        ALTER TABLE run_2024 OWNER TO {owner}; GRANT SELECT ON run_2025 TO PUBLIC;
        ALTER TABLE ONLY run REPLICA IDENTITY FULL; ALTER TABLE run_2024 REPLICA IDENTITY FULL""")
    report = keep(database.dsn, premake=0)
    reported = {each.message.split(";")[0] for each in report.after.findings if each.reason == "DiffersFromParent"}
    assert reported == {
        "owner not as the parent's: run_2024",
        "grants not as the parent's: run_2025",
        "row security not as the parent's: run_2024",
        "replica identity not as the parent's: run_2025",
    }
    assert not any(each.error for each in report.after.findings)
    database.execute("""ALTER TABLE run_2024 OWNER TO CURRENT_USER; REVOKE SELECT ON run_2025 FROM PUBLIC;
        ALTER TABLE run_2024 ENABLE ROW LEVEL SECURITY; ALTER TABLE run_2025 REPLICA IDENTITY FULL""")
    assert findings(keep(database.dsn, premake=0)) == ()


def test_siblings_that_are_partitioned_themselves_are_named(database: Database) -> None:
    """Until new partitions are made like them, that they are not is said while there is time."""
    database.execute("""
        CREATE TABLE run (id int, region text, at date NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
          PARTITION BY LIST (region);
        CREATE TABLE run_2024_eu PARTITION OF run_2024 FOR VALUES IN ('eu');
        CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
          PARTITION BY LIST (region);
        CREATE TABLE run_2025_us PARTITION OF run_2025 FOR VALUES IN ('us')""")
    report = keep(database.dsn, premake=1)
    assert reasons(report) == ["created", "created"]
    for plan in (report.before, report.after):
        (finding,) = [each for each in plan.findings if each.reason == "SubPartitioned"]
        assert (finding.object, finding.error) == ("public.run", None)
        assert "partitioned themselves: run_2024, run_2025; new partitions are plain tables" in finding.message
