"""What owners of tables, views and partitions do to their own objects, before, during and after a conversion."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from lab.postgres import Database
from partwarden.api.policy import Table, TableSpec
from partwarden.errors import InsufficientPrivilege, StatementFailed, StatementRejected
from partwarden.planner.conversion_plan import ConversionPlan
from partwarden.planner.conversion_rules import CHECK, Wanted
from partwarden.postgres import conversion_finish, conversion_prepare
from partwarden.postgres.connection import Session, run, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, finish, observe_conversion, undo
from partwarden.postgres.conversion_facts import read_table
from support.converted import ID, LEGACY, PLAIN
from support.converted import convert as convert_run
from support.converted import undo as undo_run

RUN = """CREATE TABLE run (id bigint PRIMARY KEY, at timestamptz NOT NULL, n int);
    INSERT INTO run SELECT n, now() - n * interval '1 hour', n FROM generate_series(1, 100) n;"""
WANTED = Wanted(TableSpec.model_validate({"table": {"name": "run"}, "key": "at", "interval": "Year"}), widen_keys=True)
CHECKS = "SELECT conname FROM pg_constraint WHERE conname = %s"


def observe(dsn: str) -> ConversionPlan:
    with session(from_dsn(dsn)) as connection:
        return observe_conversion(connection, WANTED)


def do(dsn: str, patience: float = 10.0) -> None:
    with session(from_dsn(dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        assert plan.refusals == ()
        convert(connection, WANTED, plan, patience, lambda *_: None)


@pytest.mark.parametrize(
    "own",
    [
        "CREATE TRIGGER frozen BEFORE INSERT ON {legacy} FOR EACH ROW EXECUTE FUNCTION nothing();"
        "CREATE TRIGGER frozen BEFORE DELETE ON run_2027 FOR EACH ROW EXECUTE FUNCTION nothing()",
        "CREATE RULE frozen AS ON INSERT TO {legacy} DO INSTEAD NOTHING",
        "CREATE RULE frozen AS ON DELETE TO run DO INSTEAD NOTHING",
    ],
)
def test_what_keeps_rows_out_of_the_first_partition_loses_none_on_the_way_back(database: Database, own: str) -> None:
    """Such as a trigger by which a user keeps old rows as they are."""
    database.execute(f"{PLAIN} CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    convert_run(database, ID)
    database.execute(
        f"INSERT INTO run VALUES (2001, '2027-05-05Z'), (2002, '2028-05-05Z'); {own.format(legacy=LEGACY)}"
    )
    if "TRIGGER" in own:
        database.execute(f"ALTER TABLE {LEGACY} ENABLE ALWAYS TRIGGER frozen")
        undo_run(database.dsn)
        enabled = "SELECT tgenabled::text FROM pg_trigger WHERE tgrelid = 'run'::regclass"
        assert database.query(enabled) == [("A",)]
    else:
        with pytest.raises(StatementRejected):
            undo_run(database.dsn)
    assert database.query("SELECT count(*), count(DISTINCT id) FROM run") == [(1002, 1002)]


def test_a_mark_names_no_foreign_key_of_another_table(database: Database) -> None:
    """Anyone who may comment on a partition could else have a table of others read from end to end."""
    database.execute(f"""{PLAIN} CREATE TABLE far (id int PRIMARY KEY); CREATE TABLE near (far int);
        ALTER TABLE near ADD CONSTRAINT far FOREIGN KEY (far) REFERENCES far NOT VALID""")
    convert_run(database, ID)
    database.execute(f"""DO $$ BEGIN EXECUTE format('COMMENT ON TABLE {LEGACY} IS %L',
        replace(obj_description('{LEGACY}'::regclass), '"validate": []',
                '"validate": [["public", "near", "far"]]')); END $$""")
    with session(from_dsn(database.dsn)) as connection:
        assert finish(connection, read_table(connection, Table(name="run"), "at", CHECK).parent, 10.0, lambda *_: None)
        assert conversion_finish.read_mark(connection, "public", LEGACY)[1] is not None
    assert database.query("SELECT convalidated FROM pg_constraint WHERE conname = 'far'") == [(False,)]


def test_a_check_whose_range_ends_is_taken_away_as_soon_as_its_table_is_free(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the range ends, however short the patience is: it was over long before a validation of hours ended."""
    database.execute(RUN)
    monkeypatch.setattr(conversion_prepare, "SLACK", 10 * 365 * 86400.0)
    original = conversion_prepare._alter
    with closing(database.connect()) as other:
        other.autocommit = False

        def slow(session: Session, table: object, *changes: object) -> None:
            if "VALIDATE" in str(changes):
                # From the moment at which the validation ends on.
                other.execute("SELECT FROM run LIMIT 1")
                threading.Timer(2.5, other.rollback).start()
                run(session, "SELECT pg_sleep(60)")
            original(session, table, *changes)  # type: ignore[arg-type]

        monkeypatch.setattr(conversion_prepare, "_alter", slow)
        with pytest.raises(StatementFailed, match="taken away again"):
            do(database.dsn, patience=0.1)
    assert database.query(CHECKS, CHECK) == []


def test_indexes_whose_names_would_be_one_are_refused_before_anything_is_done(database: Database) -> None:
    database.execute(f"{RUN} CREATE INDEX run_n ON run (n); CREATE INDEX n ON run (n, id)")
    refused = [str(each) for each in observe(database.dsn).refusals]
    assert len(refused) == 2
    assert "index n: it would be called run_until_" in refused[0]
    database.execute("DROP INDEX n; CREATE TABLE other (id int)")
    (later,) = {each.legacy for each in (observe(database.dsn).conversion,) if each}
    database.execute(f"ALTER TABLE other RENAME TO {later}_n")
    assert [each.object for each in observe(database.dsn).refusals] == ["index run_n"]
    database.execute(f"DROP TABLE {later}_n")
    database.execute(f"CREATE STATISTICS st ON n, id FROM run; CREATE STATISTICS {later}_st ON n, at FROM run")
    assert [each.object for each in observe(database.dsn).refusals] == ["statistics st"]
    database.execute(f"ALTER STATISTICS {later}_st RENAME TO others")
    do(database.dsn)


def test_a_trigger_that_may_set_the_key_is_named(database: Database) -> None:
    database.execute(f"""{RUN} CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN NEW.at = now(); RETURN NEW; END';
        CREATE TRIGGER stamped BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION stamp();
        CREATE TRIGGER after AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION stamp()""")
    said = {each.object: each.text for each in observe(database.dsn).changes}
    assert "a write fails where it sets the partition key" in said["row trigger before the event stamped"]
    assert said["row trigger after"] == "kept, and so for each new partition"


def test_where_the_swap_needs_a_right_that_the_login_lacks_no_check_is_left(database: Database) -> None:
    """A write beyond its range would be refused, however long it takes until the right is given."""
    owner = database.new_role()
    database.execute(f"""{RUN} GRANT CREATE ON SCHEMA public TO {owner.name}; ALTER TABLE run OWNER TO {owner.name}""")
    with session(from_dsn(owner.dsn)) as connection:
        plan = observe_conversion(connection, WANTED)
        # Made once the plan is there, which would have named it.
        database.execute("CREATE VIEW of_others AS SELECT id FROM run")
        with pytest.raises(InsufficientPrivilege, match="of_others"):
            convert(connection, WANTED, plan, 10.0, lambda *_: None)
    assert database.query(CHECKS, CHECK) == []
    assert "view public.of_others is made anew" in str(observe(owner.dsn).refusals)
    do(database.dsn)


@pytest.mark.parametrize("published", ["", "CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root)"])
def test_forced_row_security_is_refused_and_hides_no_row_on_the_way_back(database: Database, published: str) -> None:
    """No row may be taken for absent because a policy hides it from the owner."""
    owner = database.new_role()
    database.execute(f"""{RUN} GRANT CREATE ON SCHEMA public TO {owner.name}; ALTER TABLE run OWNER TO {owner.name};
        CREATE POLICY p ON run USING (n < 50); ALTER TABLE run ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        {published}""")
    assert "row security is forced" in str(observe(database.dsn).refusals)
    database.execute("ALTER TABLE run NO FORCE ROW LEVEL SECURITY")
    do(database.dsn)
    database.execute("ALTER TABLE run FORCE ROW LEVEL SECURITY")
    (later,) = database.query("SELECT inhrelid::regclass::text FROM pg_inherits ORDER BY inhrelid DESC LIMIT 1")
    database.execute(f"ALTER TABLE {later[0]} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    if not published:
        database.execute("INSERT INTO run VALUES (2000, now() + interval '1 year', 77)")
    with session(from_dsn(database.dsn)) as connection:
        undo(connection, Table(name="run"), "at", 10.0, 1000, lambda *_: None)
    assert database.query("SELECT count(*) FROM run") == [(100 if published else 101,)]


def test_the_constraint_of_a_key_that_becomes_not_null_is_called_as_postgresql_calls_it(database: Database) -> None:
    """From 18 on; also where table and column together are too long for a name."""
    name, key = "läufe_" + "x" * 30, "eingereicht_über_" + "y" * 20
    database.execute(f"""CREATE SCHEMA other; CREATE TABLE other.{name} ({key} timestamptz NOT NULL);
        CREATE TABLE {name} (id int PRIMARY KEY, {key} timestamptz)""")
    spec = TableSpec.model_validate({"table": {"name": name}, "key": key, "interval": "Year"})
    with session(from_dsn(database.dsn)) as connection:
        wanted = Wanted(spec, widen_keys=True)
        convert(connection, wanted, observe_conversion(connection, wanted), 10.0, lambda *_: None)
    names = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'n' AND conname ~ 'eing' "
    assert database.query(names, name) == database.query(names, f"other.{name}")
