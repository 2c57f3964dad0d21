"""A plain table becomes a partition: like one that was partitioned from the start, or nothing has changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from lab.postgres import Database, Server
from partwarden.errors import DatabaseUnreachable, InsufficientPrivilege, StatementRejected, TableBusy, TableChanged
from partwarden.planner.conversion import WidenedKey
from partwarden.postgres import conversion_finish, conversion_swap, conversion_undo
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_obstacles import obstacles
from support import converted_schema
from support.converted import AHEAD, ID, LEGACY, PLAIN, conversion, convert, dump, prepare, swap, tablespace, undo
from support.meanwhile import keep, killing_after_each_ddl_command

STATE = """
SELECT 'relation', relname::text, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', conname, conrelid::regclass::text FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'comment', description, '' FROM pg_description WHERE objoid = 'run'::regclass ORDER BY 1, 2, 3
"""


N = WidenedKey(constraint="run_n_key", primary=False, columns=("n", "at"), index="run_n_key_wide")


def of_legacy(head: str) -> bool:
    """Whether an entry of a dump is about the first partition, which is wider than one that a policy makes."""
    return LEGACY in head or ID.index in head


def test_it_is_as_one_partitioned_from_the_start_and_comes_back_as_it_was(database: Database) -> None:
    with database.server.new_database() as reference:
        roles = [database.new_role() for _ in range(3)]
        converted_schema.make(database, roles, partitioned=False)
        database.execute(converted_schema.ROWS)
        converted_schema.make(reference, roles, partitioned=True)
        converted_schema.make_partitions(reference)
        wanted = {head: body for head, body in dump(reference).items() if not of_legacy(head)}
    before, rows = dump(database), database.query("SELECT run::text FROM run ORDER BY 1")
    ((last,),) = database.query("SELECT last_value FROM run_id_seq")
    made = convert(database, ID)
    assert {head: body for head, body in dump(database).items() if not of_legacy(head)} == wanted
    assert database.query("SELECT run::text FROM run ORDER BY 1") == rows
    assert database.query("SELECT count(*) FROM lately") == [(500,)]
    assert database.query(f"SELECT '{LEGACY}'::regclass::oid::int8") == [(made.oid,)]
    assert database.query("SELECT last_value FROM run_id_seq") == [(last,)]
    assert database.query("SELECT convalidated FROM pg_constraint WHERE conname = 'log_run' AND conparentid = 0") == [
        (True,)
    ]
    database.execute("INSERT INTO totals VALUES ('2027-05-05Z', 1)")
    database.execute("INSERT INTO run (at, note) VALUES ('2027-05-05Z', '')")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.execute("INSERT INTO log VALUES (1, '2027-05-05Z', 1)")
    assert undo(database.dsn) == 2
    assert dump(database) == before
    assert database.query("SELECT 'run'::regclass::oid::int8") == [(made.oid,)]
    assert database.query("SELECT count(*) FROM run") == [(502,)]
    assert database.query("SELECT count(*) FROM log") == [(50,)]


def test_no_row_is_read_under_the_lock(database: Database) -> None:
    """Not even for NOT NULL of the key, which a primary key with it needs."""
    database.execute(PLAIN)
    database.execute("ALTER TABLE run ALTER at DROP NOT NULL")
    before = dump(database)
    made = conversion(database, ID)
    prepare(database, made)
    database.execute(f"""ALTER DATABASE "{database.name}" SET client_min_messages = debug1""")
    said: list[str] = []
    with session(from_dsn(database.dsn)) as connection:
        connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        conversion_swap.swap(connection, made, time.monotonic() + 10)
    database.execute(f"""ALTER DATABASE "{database.name}" RESET client_min_messages""")
    assert f'partition constraint for table "{LEGACY}" is implied by existing constraints' in said
    proof = f'existing constraints on column "{LEGACY}.at" are sufficient to prove that it does not contain nulls'
    assert proof in said
    assert not [each for each in said if each == f'verifying table "{LEGACY}"' or f'index "{ID.index}"' in each]
    undo(database.dsn)
    assert dump(database) == before


def test_a_policy_goes_on_with_it(database: Database) -> None:
    database.execute(PLAIN)
    convert(database, ID)
    report = keep(database.dsn, premake=3)
    assert [each.action.name for each in report.outcomes if not each.error] == ["run_2029"]
    assert len([each for each in report.after.findings if each.error]) == 0
    database.execute("INSERT INTO run VALUES (1, '2028-01-01Z')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        # Old rows stay unique.
        database.execute("INSERT INTO run VALUES (1, '2026-02-02Z')")


def test_a_session_that_ends_at_any_command_leaves_the_table_as_it_was(database: Database) -> None:
    """So does one that ends on the way back."""
    database.execute(f"""{PLAIN} CREATE VIEW above AS SELECT id FROM run; CREATE TABLE audit (n int);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER noted AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION note();
        COMMENT ON TABLE run IS 'theirs'""")
    made = conversion(database, ID)
    prepare(database, made)
    for step in (lambda: swap(database.dsn, made), lambda: undo(database.dsn)):
        before, kills = database.query(STATE), 0
        for _ in killing_after_each_ddl_command(database):
            with suppress(DatabaseUnreachable):
                step()
                break
            kills += 1
            assert database.query(STATE) == before
            assert database.query("SELECT count(*), count(DISTINCT id) FROM run") == [(1000, 1000)]
        database.execute("DROP EVENT TRIGGER count_ddl; DROP FUNCTION count_ddl()")
        assert kills > 10
        assert database.query(STATE) != before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE run RENAME TO ran", "was dropped, renamed or made anew"),
        ("DROP INDEX run_pkey_wide", "index run_pkey_wide of table public.run is not the valid unique index"),
        ("ALTER TABLE run DROP CONSTRAINT partwarden_range", "no valid constraint partwarden_range"),
        (
            "ALTER TABLE run DROP CONSTRAINT partwarden_range; ALTER TABLE run ADD CONSTRAINT partwarden_range "
            "CHECK (at IS NOT NULL AND at >= '2020-01-01Z' AND at < '2028-01-01Z')",
            "holds its rows to the planned range",
        ),
    ],
)
def test_what_changed_since_it_was_planned_is_named(database: Database, change: str, words: str) -> None:
    database.execute(PLAIN)
    made = conversion(database, ID)
    prepare(database, made)
    database.execute(change)
    with pytest.raises(TableChanged, match=words):
        swap(database.dsn, made)
    assert database.query("SELECT count(*) FROM pg_partitioned_table") == [(0,)]


def test_a_view_made_at_the_last_moment_is_seen_under_the_lock(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(PLAIN)
    made = conversion(database, ID)
    prepare(database, made)
    work = conversion_swap._work

    def late(*arguments: Any) -> Iterator[Any]:
        message = list(work(*arguments))
        database.execute("CREATE VIEW late AS SELECT id FROM run")
        return iter(message)

    with monkeypatch.context() as patched:
        patched.setattr(conversion_swap, "_work", late)
        with pytest.raises(TableChanged, match="what depends on it, changed"):
            swap(database.dsn, made)
    swap(database.dsn, made)
    database.execute("INSERT INTO run VALUES (9000, '2027-01-01Z')")
    assert database.query("SELECT count(*) FROM late") == [(1001,)]


def test_a_lock_holder_is_named_and_others_go_on(database: Database) -> None:
    database.execute(PLAIN)
    made = conversion(database, ID)
    prepare(database, made)
    with database.connect() as other:
        other.execute("BEGIN; SELECT count(*) FROM run")
        with pytest.raises(TableBusy, match=rf"held by pid {other.info.backend_pid} "):
            swap(database.dsn, made, patience=0.5)
        assert database.query("SELECT count(*) FROM run") == [(1000,)]
    swap(database.dsn, made)


def test_foreign_keys_left_to_be_validated_are_validated_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process ends after COMMIT. A key that was NOT VALID before stays so."""
    wide = "CREATE UNIQUE INDEX of_both ON run (id, at);"
    database.execute(f"""{PLAIN} {wide} CREATE TABLE log (run bigint, at timestamptz,
        CONSTRAINT valid FOREIGN KEY (run, at) REFERENCES run (id, at));
        INSERT INTO log VALUES (1, '2026-01-01Z'); CREATE TABLE draft (run bigint, at timestamptz);
        INSERT INTO draft VALUES (-1, '2026-01-01Z');
        ALTER TABLE draft ADD CONSTRAINT lax FOREIGN KEY (run, at) REFERENCES run (id, at) NOT VALID""")
    valid = "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 ORDER BY 1"
    made = conversion(database, ID)
    prepare(database, made)
    with monkeypatch.context() as patched:
        patched.setattr(conversion_swap, "finish", lambda *_: None)
        swap(database.dsn, made)
    assert database.query(valid) == [("lax", False), ("valid", False)]
    with monkeypatch.context() as patched:
        patched.setattr(conversion_undo, "finish", lambda *_: None)
        undo(database.dsn)
    assert database.query(valid) == [("lax", False), ("valid", False)]
    convert(database, ID)
    assert database.query(valid) == [("lax", False), ("valid", True)]
    with monkeypatch.context() as patched:
        patched.setattr(conversion_undo, "finish", lambda *_: None)
        undo(database.dsn)
    with session(from_dsn(database.dsn)) as connection:
        for _ in range(2):
            conversion_finish.finish(connection, "public", "run", time.monotonic() + 10)
            assert database.query(valid) == [("lax", False), ("valid", True)]
    assert database.query("SELECT obj_description('run'::regclass)") == [(None,)]


FORBIDDEN = (
    ("CREATE TABLE run (id int, at date) PARTITION BY RANGE (at)", "partitioned already"),
    ("CREATE UNLOGGED TABLE run (id int, at date)", "UNLOGGED"),
    ("CREATE TYPE t AS (at date); CREATE TABLE run OF t", "a typed table"),
    ("CREATE TABLE up (at date); CREATE TABLE run () INHERITS (up)", "a child of another table"),
    ("CREATE TABLE run (at date); CREATE TABLE down () INHERITS (run)", "the parent of other tables"),
    ("CREATE TABLE run (y int, at date GENERATED ALWAYS AS ('2020-01-01'::date + y) STORED)", "at is generated"),
    ("CREATE TABLE run (id int PRIMARY KEY, at date)", "constraint run_pkey does not hold the key column"),
    (
        "CREATE TABLE run (id int, at date); CREATE UNIQUE INDEX i ON run (id)",
        "index i is unique without the key column",
    ),
    ("CREATE TABLE run (at date, EXCLUDE (at WITH =))", "constraint run_at_excl excludes overlapping rows"),
    ("CREATE TABLE run (at date, CONSTRAINT c CHECK (at > '2000-01-01') NO INHERIT)", "constraint c is NO INHERIT"),
    (
        "CREATE TABLE run (id int UNIQUE, at date, up int CONSTRAINT f REFERENCES run (id))",
        "constraint f points to the table itself, to a key that is not unique",
    ),
    (
        "CREATE TABLE o (id int PRIMARY KEY); CREATE TABLE run (at date, o int);"
        "ALTER TABLE run ADD CONSTRAINT f FOREIGN KEY (o) REFERENCES o NOT VALID",
        "constraint f is a foreign key that is NOT VALID",
    ),
    (
        "CREATE TABLE run (id int UNIQUE, at date UNIQUE); CREATE TABLE log (run int CONSTRAINT f REFERENCES run (id))",
        "foreign key f of public.log points to a key that is not unique over all partitions",
    ),
    (
        "CREATE TABLE run (at date UNIQUE); CREATE TABLE log (at date REFERENCES run (at)) PARTITION BY LIST (at)",
        "foreign key log_at_fkey of public.log is of a partitioned table",
    ),
    (
        "CREATE TABLE run (at date); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER g AFTER INSERT ON run REFERENCING NEW TABLE AS n FOR EACH ROW EXECUTE FUNCTION f()",
        "trigger g is FOR EACH ROW with transition tables",
    ),
    (
        "CREATE TABLE run (at date); CREATE MATERIALIZED VIEW v AS SELECT * FROM run",
        "rule _RETURN on materialized view",
    ),
    ("CREATE TABLE run (at date); CREATE VIEW v AS SELECT run FROM run", "depends on its row type"),
    ("CREATE TABLE run (at date); CREATE TABLE other (r run[])", "depends on its row type"),
    ("CREATE TABLE run (at date); CREATE FUNCTION f() RETURNS SETOF run LANGUAGE sql AS 'TABLE run'", "function"),
    (
        "CREATE TABLE run (at date); CREATE FUNCTION f() RETURNS int8 LANGUAGE sql "
        "BEGIN ATOMIC SELECT count(*) FROM run; END",
        "depends on it",
    ),
    ("CREATE TABLE run (at date); CREATE RULE r AS ON DELETE TO run DO INSTEAD NOTHING", "rule r on table"),
    (
        "CREATE TABLE run (at date); CREATE TABLE log (at date);"
        "CREATE POLICY p ON log USING (EXISTS (SELECT FROM run WHERE run.at = log.at))",
        "policy p on table",
    ),
    (
        "CREATE TABLE run (at date); CREATE PUBLICATION p FOR TABLE run",
        "publication p publishes it without publish_via_partition_root",
    ),
    ("CREATE TABLE run (at date); CREATE PUBLICATION p FOR ALL TABLES", "publication p publishes it without"),
)
FORBIDDEN_FROM_18 = (
    (
        "CREATE EXTENSION btree_gist; CREATE TABLE run (id int, at date, d daterange, "
        "PRIMARY KEY (id, at, d WITHOUT OVERLAPS))",
        "constraint run_pkey is WITHOUT OVERLAPS",
    ),
    (
        "CREATE TABLE run (at date); ALTER TABLE run ADD CONSTRAINT n NOT NULL at NO INHERIT",
        "constraint n is NO INHERIT",
    ),
    (
        "CREATE TABLE run (at date); ALTER TABLE run ADD CONSTRAINT n NOT NULL at NOT VALID",
        "a NOT NULL that is NOT VALID",
    ),
    (
        "CREATE TABLE o (id int PRIMARY KEY); CREATE TABLE run (at date, o int CONSTRAINT f REFERENCES o NOT ENFORCED)",
        "constraint f is a foreign key",
    ),
)


def test_what_cannot_be_carried_over_is_named(database: Database) -> None:
    with database.connect() as connection:
        for ddl, words in FORBIDDEN + (FORBIDDEN_FROM_18 if database.server.major >= 18 else ()):
            connection.execute("CREATE SCHEMA IF NOT EXISTS public")
            connection.execute(ddl.encode())
            found = [*obstacles_of(database)]
            connection.execute("DROP SCHEMA public CASCADE; DROP PUBLICATION IF EXISTS p")
            assert any(words in what for what, _ in found), (ddl, found)
            assert all(way_out for _, way_out in found)


def obstacles_of(database: Database, *widened: WidenedKey) -> tuple[tuple[str, str], ...]:
    made = conversion(database, *widened)
    with session(from_dsn(database.dsn)) as connection:
        return obstacles(connection, made)


def test_a_view_that_needs_the_narrow_key_is_named_and_nothing_changes(database: Database) -> None:
    database.execute(f"{PLAIN} CREATE VIEW grouped AS SELECT id, n FROM run GROUP BY id")
    made = conversion(database, ID)
    prepare(database, made)
    before = database.query(STATE)
    with pytest.raises(
        StatementRejected, match=r"view public\.grouped depends on constraint run_pkey, which is widened"
    ):
        swap(database.dsn, made)
    assert database.query(STATE) == before


def test_the_owner_converts_it_and_another_role_does_not(database: Database) -> None:
    owner, other = database.new_role(), database.new_role()
    database.execute(f"{PLAIN} ALTER TABLE run OWNER TO {owner.name}")
    made = conversion(database, ID)
    prepare(database, made)
    if database.server.major >= 15:
        with pytest.raises(StatementRejected, match=f"GRANT CREATE ON SCHEMA public TO {owner.name}"):
            swap(owner.dsn, made)
    database.execute(f"GRANT CREATE ON SCHEMA public TO {owner.name}")
    with pytest.raises(InsufficientPrivilege):
        swap(other.dsn, made)
    assert database.query("SELECT count(*) FROM pg_partitioned_table") == [(0,)]
    swap(owner.dsn, made)
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'run%'"
    assert database.query(owners) == [(owner.name,)]
    assert undo(owner.dsn) == 0


def test_a_unique_constraint_becomes_wider_and_comes_back(database: Database) -> None:
    """Beside a primary key that becomes wider, and one that holds the key already."""
    pairs = """SELECT i.inhparent::regclass::text, c.relname::text FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'i' AND c.relname LIKE 'run_2027%' ORDER BY 1"""
    for definition, keys in (("id", (ID, N)), ("id, at", (N,))):
        database.execute(f"""{PLAIN} ALTER TABLE run DROP CONSTRAINT run_pkey;
            ALTER TABLE run ADD PRIMARY KEY ({definition}), ADD CONSTRAINT run_n_key UNIQUE (n)""")
        before = dump(database)
        convert(database, *keys)
        assert database.query(pairs) == [("run_n_key", "run_2027_n_at_key"), ("run_pkey", "run_2027_pkey")]
        with pytest.raises(psycopg.errors.UniqueViolation, match=f"{LEGACY}_n_key"):
            database.execute("INSERT INTO run VALUES (5000, '2026-02-02Z', 7)")
        database.execute("INSERT INTO run VALUES (5000, '2027-02-02Z', 7)")
        with pytest.raises(StatementRejected, match="has a key that"):
            undo(database.dsn)
        database.execute("UPDATE run SET n = 5000 WHERE id = 5000")
        assert undo(database.dsn) == 1
        assert dump(database) == before
        database.execute("DROP TABLE run")


def test_tablespaces_of_table_and_indexes_are_those_of_what_is_new(server: Server) -> None:
    """Without partitions ahead, as well."""
    if server.major < 15:
        # Only a test that owns the server's disk could make one.
        return
    with tablespace(server) as space, server.new_database() as database:
        database.execute(f"""CREATE TABLE run (id int, at timestamptz, n int) TABLESPACE {space};
            ALTER TABLE run ADD CONSTRAINT run_pkey PRIMARY KEY (id) USING INDEX TABLESPACE {space};
            CREATE INDEX at ON run (at) TABLESPACE {space}; CREATE INDEX n ON run (n)""")
        before = dump(database)
        for ahead in ((), AHEAD):
            convert(database, ID, ahead=ahead)
            where = """SELECT relname::text FROM pg_class c JOIN pg_tablespace s ON s.oid = c.reltablespace
                WHERE spcname = %s AND relnamespace = 'public'::regnamespace ORDER BY relname"""
            new = [f"{each.name}{end}" for each in ahead for end in ("", "_at_idx", "_pkey")]
            old = [LEGACY, f"{LEGACY}_at", f"{LEGACY}_pkey"]
            wanted = ["at", "run", *new, "run_pkey", *old]
            assert [name for (name,) in database.query(where, space)] == wanted
            undo(database.dsn)
            assert dump(database) == before
