"""Rows of DEFAULT move into the partition that should hold them: content, limits, keys, triggers, shapes, rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from lab.postgres import Database, Server
from partwarden.postgres.engine import Report
from partwarden.postgres.locks import wait_for_snapshots
from support.meanwhile import RUN, keep, keep_while, reasons

REST = "CREATE TABLE rest PARTITION OF run DEFAULT;"
KEYED = """
    CREATE TABLE run (id int, submitted_at timestamptz NOT NULL, PRIMARY KEY (id, submitted_at))
        PARTITION BY RANGE (submitted_at);
    CREATE TABLE rest PARTITION OF run DEFAULT;
    INSERT INTO run VALUES (1, '2026-05-01Z'), (2, '2026-06-01Z'), (3, '2019-01-01Z');
"""
BEGUN = 7
"""The first round trip of a drain, after those that observe the table and find lock holders."""


def drain(dsn: str, **fields: Any) -> Report:
    section = {"drain": "Auto", **fields.pop("defaultPartition", {})}
    return keep(dsn, premake=0, startFrom="2026-01-01", defaultPartition=section, **fields)


def error(report: Report) -> tuple[str, str]:
    (outcome,) = report.outcomes
    assert outcome.error is not None
    return outcome.error.reason, str(outcome.error)


def content(database: Database, table: str = "run") -> list[tuple[object, ...]]:
    return database.query(f"SELECT t::text FROM {table} t ORDER BY 1")


def where(database: Database) -> dict[object, object]:
    return dict(database.query("SELECT tableoid::regclass::text, count(*) FROM run GROUP BY 1"))  # type: ignore[arg-type]


def leftovers(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT relname FROM pg_class WHERE relname LIKE 'partwarden%' "
        "UNION ALL SELECT conname FROM pg_constraint WHERE conname LIKE 'partwarden%'"
    )


def test_rows_of_every_shape_move_as_they_are(database: Database) -> None:
    """Dropped, generated and identity columns, other places of columns in all three tables, large values, NULLs."""
    database.execute("""
        CREATE TABLE run (gone int, id bigint GENERATED ALWAYS AS IDENTITY, "Oth er" jsonb, submitted_at timestamptz NOT
            NULL, twice int GENERATED ALWAYS AS (length(note) * 2) STORED, note text, tags text[], f float8,
            PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
        CREATE INDEX ON run (lower(note)) WHERE note IS NOT NULL;
        CREATE TABLE rest (f float8, also_gone int, tags text[], note text, submitted_at timestamptz NOT NULL, x int,
            id bigint NOT NULL, "Oth er" jsonb, twice int GENERATED ALWAYS AS (length(note) * 2) STORED);
        ALTER TABLE rest DROP COLUMN also_gone, DROP COLUMN x;
        ALTER TABLE run DROP COLUMN gone;
        ALTER TABLE run ATTACH PARTITION rest DEFAULT;
        INSERT INTO run ("Oth er", submitted_at, note, tags, f)
          SELECT CASE n % 3 WHEN 0 THEN '{"a": [1, null]}'::jsonb END,
            '2025-12-31Z'::timestamptz + n * interval '9 hours',
            CASE WHEN n % 7 > 0 THEN repeat(md5(n::text), n % 400) END, ARRAY['x', NULL], n / 3.0
          FROM generate_series(1, 2000) n""")
    before = content(database)
    report = drain(database.dsn)
    assert reasons(report) == ["created"]
    assert report.after.actions == ()
    assert content(database) == before
    assert (
        where(database)["run_2026"]
        == database.query(
            "SELECT count(*) FROM run WHERE submitted_at >= '2026-01-01Z' AND submitted_at < '2027-01-01Z'"
        )[0][0]
    )
    assert leftovers(database) == []
    indexes = "SELECT count(*), bool_and(indisvalid) FROM pg_index WHERE indrelid = 'run_2026'::regclass"
    assert database.query(indexes) == [(2, True)]
    database.execute("INSERT INTO run (submitted_at) VALUES ('2026-07-07Z')")


def test_a_generated_column_that_would_change_stays(database: Database) -> None:
    database.execute(f"""
        CREATE TABLE run (submitted_at timestamptz NOT NULL, n int) PARTITION BY RANGE (submitted_at);
        CREATE FUNCTION factor() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2';
        ALTER TABLE run ADD many int GENERATED ALWAYS AS (n * factor()) STORED; {REST}
        INSERT INTO run VALUES ('2026-05-01Z', 1), ('2026-06-01Z', 0);
        CREATE OR REPLACE FUNCTION factor() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3'""")
    before = content(database)
    reason, message = error(drain(database.dsn))
    assert reason == "StatementRejected"
    assert "1 row of DEFAULT partition public.rest would not be the same" in message
    assert content(database) == before
    assert where(database) == {"rest": 2}


def test_rows_that_break_a_constraint_stay_and_it_is_named(database: Database) -> None:
    """By hand they could not be moved either, so that is not what is advised."""
    database.execute(f"""
        CREATE TABLE run (submitted_at timestamptz NOT NULL, n int) PARTITION BY RANGE (submitted_at); {REST}
        INSERT INTO run VALUES ('2026-05-01Z', -1), ('2026-06-01Z', 1);
        ALTER TABLE run ADD CONSTRAINT "Some of it" CHECK (n > 0) NOT VALID""")
    reason, message = error(drain(database.dsn))
    assert reason == "StatementRejected"
    assert 'in the DEFAULT partition public.rest break the constraint "Some of it"' in message
    assert "correct those rows, or drop it on public.run" in message
    assert "move them" not in message
    assert where(database) == {"rest": 2}
    assert leftovers(database) == []
    database.execute("UPDATE run SET n = 2 WHERE n < 0")
    assert reasons(drain(database.dsn)) == ["created"]


def test_rows_that_lack_a_value_required_since_stay(database: Database) -> None:
    database.execute(f"""
        CREATE TABLE run (submitted_at timestamptz NOT NULL, n int) PARTITION BY RANGE (submitted_at); {REST}
        INSERT INTO run VALUES ('2026-05-01Z', NULL)""")
    younger = "ALTER TABLE run ADD CONSTRAINT filled NOT NULL n NOT VALID"
    if database.server.major < 18:
        with pytest.raises(psycopg.errors.SyntaxError):
            database.execute(younger)
        return
    database.execute(younger)
    reason, message = error(drain(database.dsn))
    assert reason == "StatementRejected"
    assert 'break NOT NULL of column "n"' in message or 'break the constraint "filled"' in message
    assert where(database) == {"rest": 1}


def test_the_limit_is_kept_when_planned_and_when_done(database: Database) -> None:
    database.execute(f"{RUN} {REST} INSERT INTO run SELECT '2026-05-01Z' FROM generate_series(1, 11)")
    report = drain(database.dsn, defaultPartition={"drainMaxRows": 10})
    assert reasons(report) == []
    (finding,) = [each for each in report.after.findings if each.error]
    assert finding.reason == "DefaultHasRows"
    assert "11 rows" in finding.message
    assert "more than 10 (spec.defaultPartition.drainMaxRows)" in finding.message
    more = "INSERT INTO run SELECT '2026-05-01Z' FROM generate_series(1, 3)"
    fields: dict[str, Any] = {"premake": 0, "defaultPartition": {"drain": "Auto", "drainMaxRows": 12}}
    report = keep_while(database.dsn, BEGUN, lambda: database.execute(more), **fields)
    reason, message = error(report)
    assert reason == "DefaultHasRows"
    assert "more than 12 rows" in message
    assert where(database) == {"rest": 14}
    assert reasons(drain(database.dsn, defaultPartition={"drainMaxRows": 14})) == ["created"]
    assert where(database) == {"run_2026": 14}


def test_drain_never_is_a_finding_and_the_rest_proceeds(database: Database) -> None:
    database.execute(f"{RUN} {REST} INSERT INTO run VALUES ('2026-05-01Z')")
    report = keep(database.dsn, premake=1)
    assert [each.action.name for each in report.outcomes] == ["run_2027"]
    (finding,) = [each for each in report.after.findings if each.error]
    assert finding.reason == "DefaultHasRows"
    assert "set spec.defaultPartition.drain to Auto" in finding.message


@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"])
def test_rows_that_others_reference_stay_and_so_do_the_references(database: Database, action: str) -> None:
    database.execute(f"""{KEYED}
        CREATE TABLE log (run int DEFAULT 3, at timestamptz DEFAULT '2019-01-01Z', FOREIGN KEY (run, at)
            REFERENCES run ON DELETE {action});
        INSERT INTO log VALUES (2, '2026-06-01Z'), (2, '2026-06-01Z'), (3, '2019-01-01Z'), (NULL, NULL)""")
    before = content(database), content(database, "log")
    reason, message = error(drain(database.dsn))
    assert reason == "RowsReferenced"
    assert "2 rows of public.log reference rows of its range" in message
    assert (content(database), content(database, "log")) == before
    assert where(database) == {"rest": 3}
    database.execute("DELETE FROM log WHERE run = 2")
    before = content(database), content(database, "log")
    assert reasons(drain(database.dsn)) == ["created"]
    assert (content(database), content(database, "log")) == before
    assert where(database) == {"rest": 1, "run_2026": 2}


def test_references_of_partitioned_tables_and_of_the_table_itself_count(database: Database) -> None:
    database.execute(f"""{KEYED}
        CREATE TABLE log (run int, at timestamptz, FOREIGN KEY (run, at) REFERENCES run ON DELETE CASCADE)
            PARTITION BY LIST (run);
        CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
        INSERT INTO log VALUES (1, '2026-05-01Z')""")
    assert "1 row of public.log reference" in error(drain(database.dsn))[1]
    database.execute("""DROP TABLE log; ALTER TABLE run ADD up int, ADD above timestamptz,
        ADD FOREIGN KEY (up, above) REFERENCES run ON DELETE SET NULL;
        UPDATE run SET up = 1, above = '2026-05-01Z' WHERE id = 3""")
    before = content(database)
    assert "1 row of public.run reference" in error(drain(database.dsn))[1]
    assert content(database) == before


def test_a_reference_made_after_the_first_observation_is_seen_under_the_lock(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"""{KEYED} CREATE TABLE log (run int, at timestamptz,
        FOREIGN KEY (run, at) REFERENCES run ON DELETE CASCADE)""")

    def late(*arguments: Any) -> str | None:
        database.execute("INSERT INTO log VALUES (1, '2026-05-01Z')")
        return wait_for_snapshots(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("partwarden.postgres.locks.wait_for_snapshots", late)
        assert error(drain(database.dsn))[0] == "RowsReferenced"
    assert content(database, "log") != []
    assert where(database) == {"rest": 3}


def test_keys_that_point_elsewhere_go_with_the_rows(database: Database) -> None:
    database.execute(f"""{KEYED} CREATE TABLE customer (id int PRIMARY KEY); INSERT INTO customer VALUES (7);
        ALTER TABLE run ADD customer int DEFAULT 7 REFERENCES customer ON DELETE CASCADE""")
    assert reasons(drain(database.dsn)) == ["created"]
    assert where(database) == {"rest": 1, "run_2026": 2}
    database.execute("DELETE FROM customer")
    assert where(database) == {}


def test_triggers_do_not_fire_and_are_as_they_were(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"""{KEYED} CREATE TABLE audit (what text);
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO audit VALUES (TG_NAME); RETURN coalesce(OLD, NEW); END $$;
        CREATE TRIGGER rows_before BEFORE DELETE OR INSERT ON rest FOR EACH ROW EXECUTE FUNCTION tell();
        CREATE TRIGGER rows_after AFTER DELETE OR INSERT OR UPDATE ON run FOR EACH ROW EXECUTE FUNCTION tell();
        CREATE TRIGGER statement AFTER DELETE OR INSERT ON rest FOR EACH STATEMENT EXECUTE FUNCTION tell();
        CREATE CONSTRAINT TRIGGER late AFTER DELETE ON rest DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
          EXECUTE FUNCTION tell();
        CREATE TRIGGER off AFTER DELETE ON rest FOR EACH ROW EXECUTE FUNCTION tell();
        CREATE TRIGGER always AFTER DELETE ON rest FOR EACH ROW EXECUTE FUNCTION tell();
        CREATE TRIGGER replica AFTER DELETE ON rest FOR EACH ROW EXECUTE FUNCTION tell();
        ALTER TABLE rest DISABLE TRIGGER off, ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica;
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name}""")
    states = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'rest'::regclass ORDER BY 1"
    before = database.query(states)
    assert reasons(drain(owner.dsn)) == ["created"]
    assert database.query("SELECT * FROM audit") == []
    assert database.query(states) == before
    assert where(database) == {"rest": 1, "run_2026": 2}
    database.execute("DELETE FROM run WHERE id = 1")
    assert database.query("SELECT * FROM audit") == [("rows_after",)]


@pytest.mark.parametrize(
    ("ddl", "reason", "words"),
    [
        ("ALTER TABLE rest OWNER TO CURRENT_USER", "InsufficientPrivilege", "neither its owner nor a member"),
        ("CREATE RULE kept AS ON DELETE TO rest DO INSTEAD NOTHING", "StatementRejected", "it has rules"),
        ("ALTER TABLE rest ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "DefaultHasRows", "take FORCE away"),
    ],
)
def test_rows_that_cannot_be_moved_are_reported(database: Database, ddl: str, reason: str, words: str) -> None:
    owner = database.new_role()
    database.execute(f"""{KEYED} ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name}; {ddl}; GRANT ALL ON rest TO {owner.name}""")
    said, message = error(drain(owner.dsn))
    assert said == reason
    assert words in message
    assert where(database) == {"rest": 3}


def test_row_security_hides_nothing_from_the_move(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"""{KEYED} ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name};
        ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        ALTER TABLE rest ENABLE ROW LEVEL SECURITY""")
    assert reasons(drain(owner.dsn)) == ["created"]
    assert where(database) == {"rest": 1, "run_2026": 2}
    flags = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'run_2026'"
    assert database.query(flags) == [(True, True)]


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        (
            """CREATE TABLE rest PARTITION OF run DEFAULT PARTITION BY RANGE (submitted_at);
               CREATE TABLE rest_all PARTITION OF rest DEFAULT""",
            "which is a partitioned table",
        ),
    ],
)
def test_only_rows_of_a_plain_table_are_moved(database: Database, ddl: str, words: str) -> None:
    database.execute(f"{RUN} {ddl}; INSERT INTO run VALUES ('2026-05-01Z')")
    report = drain(database.dsn)
    assert reasons(report) == []
    (finding,) = [each for each in report.after.findings if each.error]
    assert finding.reason == "DefaultHasRows"
    assert words in finding.message


def test_a_foreign_table_is_not_counted(database: Database) -> None:
    database.execute(f"""{RUN} CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
        CREATE FOREIGN TABLE rest PARTITION OF run DEFAULT SERVER nowhere""")
    report = keep(database.dsn, premake=0, mode="Plan")
    assert report.inventory.default_rows is not None
    assert "foreign table" in str(report.inventory.default_rows.error)


def test_rows_that_are_published_are_not_moved(new_server: Callable[..., Server]) -> None:
    """Subscribers would see that they go from DEFAULT, and not that they come to what is no partition yet."""
    with new_server(options={"wal_level": "logical"}).new_database() as database:
        database.execute(KEYED)
        for publication in ("FOR TABLE run", "FOR TABLES IN SCHEMA public", "FOR ALL TABLES"):
            database.execute(f"CREATE PUBLICATION published {publication}")
            reason, message = error(drain(database.dsn))
            assert reason == "StatementRejected"
            assert "publication 'published'" in message
            database.execute("DROP PUBLICATION published")
        assert where(database) == {"rest": 3}
        assert reasons(drain(database.dsn)) == ["created"]


def test_indexes_of_exclusion_constraints_are_made_once(database: Database) -> None:
    database.execute(
        f"""{
            KEYED.replace("PRIMARY KEY (id, submitted_at)", "EXCLUDE (submitted_at WITH =)")
            if database.server.major >= 17
            else KEYED
        }"""
    )
    assert reasons(drain(database.dsn)) == ["created"]
    assert database.query("SELECT count(*) FROM pg_index WHERE indrelid = 'run_2026'::regclass") == [(1,)]


def test_a_member_of_the_owner_moves_rows_even_where_the_owner_may_not_write(database: Database) -> None:
    owner, member = database.new_role(), database.new_role()
    database.execute(f"""{KEYED} ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE rest OWNER TO {owner.name};
        GRANT CREATE ON SCHEMA public TO {owner.name}, {member.name}; GRANT {owner.name} TO {member.name};
        GRANT SELECT ON run TO PUBLIC; REVOKE INSERT, DELETE ON run FROM {owner.name}""")
    assert reasons(drain(member.dsn)) == ["created"]
    assert where(database) == {"rest": 1, "run_2026": 2}
    about = """SELECT pg_get_userbyid(relowner), ARRAY(SELECT x::text FROM unnest(relacl) x ORDER BY 1)
        FROM pg_class WHERE relname = '{}'"""
    assert database.query(about.format("run_2026")) == database.query(about.format("run"))


def test_a_lock_timeout_names_the_lock_holder(database: Database) -> None:
    database.execute(KEYED)
    with database.connect() as other:
        other.execute("BEGIN; LOCK TABLE rest IN SHARE UPDATE EXCLUSIVE MODE")
        reason, message = error(drain(database.dsn))
        assert reason == "TableBusy"
        assert f"pid {other.info.backend_pid} (" in message
