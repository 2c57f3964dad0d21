"""Expired partitions are detached: their rows stay, no session is blocked, and nothing is left half-done."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database, Server
from partwarden.errors import DatabaseUnreachable
from partwarden.planner import marker
from partwarden.planner.marker import Phase
from partwarden.postgres.transaction import ADVISORY_CLASS
from support.meanwhile import keep, keep_while, kill_others, waiting
from support.observed import ODD, quoted
from support.retirement import (
    DETACH,
    DROP,
    FORMS,
    KEEP_ALL,
    LONG_AGO,
    ROWS,
    YEARS,
    attached,
    comment,
    converge,
    edit_mark,
    keep_before,
    leave_pending,
    mark,
    reading,
    rows_of_2018,
    set_comment,
    verbs,
    why,
)


@FORMS
def test_an_expired_partition_becomes_a_table_with_all_its_rows_and_a_mark(database: Database, form: str) -> None:
    database.execute(form)
    set_comment(database, text := "two\nlines, \"quotes\" 'and' \\ more\n")
    assert verbs(keep(database.dsn, **DETACH)) == [("detach", "done")]
    assert attached(database) is False
    assert database.query("SELECT count(*) FROM run_2018") == [(ROWS,)]
    said, held = marker.read(comment(database))
    assert said == text
    assert held is not None
    assert held.phase is Phase.DETACHED
    assert database.query(
        "SELECT 'run_2018'::regclass::oid::int8, 'run'::regclass::oid::int8, clock_timestamp() >= %s", held.since
    ) == [(held.oid, held.parent, True)]
    assert verbs(keep(database.dsn, **DETACH)) == []


@FORMS
def test_a_detached_table_takes_no_row_of_another_time(database: Database, form: str) -> None:
    database.execute(form)
    keep(database.dsn, **DETACH)
    for value in ("'2026-05-05Z'", "'2017-12-31Z'"):
        with pytest.raises(psycopg.errors.CheckViolation):
            database.execute(f"INSERT INTO run_2018 (id, submitted_at) VALUES (0, {value})")


@pytest.mark.parametrize("default", ["", "CREATE TABLE rest PARTITION OF {parent} DEFAULT"])
def test_names_that_need_quotes(database: Database, default: str) -> None:
    parent, partition = quoted(ODD), quoted(ODD + "2018")
    database.execute(f"CREATE TABLE {parent} ({parent} timestamptz NOT NULL) PARTITION BY RANGE ({parent})")
    for table, year in ((partition, 2018), ("now", 2026)):
        database.execute(
            f"CREATE TABLE {table} PARTITION OF {parent} FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        )
    database.execute(default.format(parent=parent))
    retention = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s"}
    fields = {**DETACH, "table": {"name": ODD}, "nameFormat": "x_{year}", "retention": retention}
    assert verbs(keep(database.dsn, **fields)) == [("detach", "done")]
    name = (ODD + "2018").replace("'", "''")
    ((text,),) = database.query(f"SELECT obj_description(oid) FROM pg_class WHERE relname = '{name}'")
    assert "2018-01-01" in str(text)
    database.execute(f"COMMENT ON TABLE {partition} IS '{_aged(str(text))}'")
    assert verbs(keep(database.dsn, **fields)) == [("drop", "done")]
    assert database.query(f"SELECT FROM pg_class WHERE relname = '{name}'") == []


def _aged(text: str) -> str:
    held = marker.read(text)[1]
    assert held is not None
    since = held.since.isoformat().replace("+00:00", "Z")
    return text.replace(since, "2026-01-01T00:00:00Z").replace("'", "''")


@FORMS
@pytest.mark.parametrize("what", ["SELECT count(*) FROM run", "INSERT INTO run (submitted_at) VALUES ('2026-07-07Z')"])
def test_a_long_transaction_that_holds_a_lock_is_named_and_not_waited_for(
    database: Database, form: str, what: str
) -> None:
    database.execute(form)
    with reading(database, what) as reader:
        # It is open until this block ends: a session that waited for it would never return.
        report = keep(database.dsn, patience=600, **DETACH)
        assert verbs(report) == [("detach", "TableBusy")]
        assert f'cannot lock public.run: held by pid {reader.info.backend_pid} (month\'s end, role "postgres")' in why(
            report
        )
        assert attached(database) is True
        assert comment(database) is None
        assert not waiting(database)
        # The same is said as long as the trouble lasts.
        assert why(keep(database.dsn, patience=600, **DETACH)) == why(report)
    assert converge(database, **DETACH) == [("detach", "done")]
    assert rows_of_2018(database) == ROWS


def test_a_prepared_transaction_that_holds_a_lock_is_named(new_server: Callable[..., Server]) -> None:
    with new_server(options={"max_prepared_transactions": "1"}).new_database() as database:
        database.execute(YEARS)
        database.execute("BEGIN; SELECT count(*) FROM run; PREPARE TRANSACTION 'left behind'")
        report = keep(database.dsn, patience=600, **DETACH)
        assert verbs(report) == [("detach", "TableBusy")]
        assert "cannot lock public.run: held by prepared transaction 'left behind'" in why(report)
        database.execute("ROLLBACK PREPARED 'left behind'")
        assert converge(database, **DETACH) == [("detach", "done")]


FIRST_QUERY, TRANSACTION = "FROM pg_constraint WHERE conrelid", "pg_try_advisory_xact_lock"


@FORMS
def test_a_short_transaction_is_waited_for(database: Database, form: str) -> None:
    database.execute(form)
    with reading(database) as reader:
        report = keep_before(database.dsn, "WITH wanted", lambda: reader.execute("COMMIT"), nth=2, **DETACH)
    assert verbs(report) == [("detach", "done")]


def test_a_transaction_that_begins_in_between_leaves_it_pending_only_until_it_ends(database: Database) -> None:
    database.execute(YEARS)
    with database.connect() as reader:

        def begin() -> None:
            reader.execute("BEGIN; SELECT count(*) FROM run")

        report = keep_before(database.dsn, "CONCURRENTLY", begin, **DETACH)
        assert verbs(report) == [("detach", "TableBusy")]
        assert f"pid {reader.info.backend_pid} (" in why(report)
        assert "finished later" in why(report)
        assert attached(database) is None
        # Not waited for either, and no other session waits meanwhile.
        report = keep(database.dsn, patience=600, **DETACH)
        assert verbs(report)[0] == ("finish detaching", "TableBusy")
        assert not waiting(database)
        reader.execute("COMMIT")
    assert ("finish detaching", "done") in converge(database, **DETACH)
    assert attached(database) is False
    assert rows_of_2018(database) == ROWS
    held = mark(database)
    assert held is not None
    assert held.phase is Phase.DETACHED


def test_a_pending_detach_made_by_hand_is_finished_and_its_table_is_never_dropped(database: Database) -> None:
    database.execute(YEARS)
    leave_pending(database)
    assert attached(database) is None
    assert converge(database, **DETACH) == [("finish detaching", "done")]
    assert attached(database) is False
    assert rows_of_2018(database) == ROWS
    assert comment(database) is None


def test_while_one_is_pending_no_other_is_begun_and_new_partitions_are_made(database: Database) -> None:
    database.execute(YEARS)
    database.execute("CREATE TABLE run_2017 PARTITION OF run FOR VALUES FROM ('2017-01-01Z') TO ('2018-01-01Z')")
    leave_pending(database, "run_2017")
    with reading(database, "SELECT count(*) FROM run_2017"):
        report = keep(database.dsn, **{**DETACH, "premake": 1})
        assert verbs(report) == [("create", "done"), ("finish detaching", "TableBusy"), ("detach", "TableBusy")]
        assert "the detach of public.run_2017 has begun before" in str(report.outcomes[-1].error)
        assert comment(database) is None
    assert converge(database, **DETACH) == [("finish detaching", "done"), ("detach", "done")]


def test_an_owner_who_is_no_superuser(database: Database) -> None:
    owner, reader = database.new_role(), database.new_role()
    database.execute(f"""{YEARS} GRANT SELECT ON run TO {reader.name}; GRANT CREATE ON SCHEMA public TO {owner.name};
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE run_2018 OWNER TO {owner.name}""")
    with psycopg.connect(reader.dsn, autocommit=True) as other:
        # How old the other role's transaction is, this one may not see.
        other.execute("BEGIN; SELECT count(*) FROM run")
        report = keep(owner.dsn, patience=600, **DETACH)
        assert verbs(report) == [("detach", "TableBusy")]
        assert f'role "{reader.name}"' in why(report)
    assert verbs(keep(owner.dsn, **DETACH)) == [("detach", "done")]
    assert verbs(keep(owner.dsn, **KEEP_ALL)) == [("attach again", "done")]
    assert verbs(keep(owner.dsn, **DETACH)) == [("detach", "done")]
    edit_mark(database, since=LONG_AGO)
    assert verbs(keep(owner.dsn, **DROP)) == [("drop", "done")]


def test_a_pending_detach_waits_for_old_snapshots_no_longer_than_a_moment(database: Database) -> None:
    database.execute(YEARS)
    database.execute("CREATE TABLE other ()")
    with reading(database, "SELECT count(*) FROM other", "ISOLATION LEVEL REPEATABLE READ") as reader:
        leave_pending(database)
        report = keep(database.dsn, patience=600, **DETACH)
        assert verbs(report) == [("finish detaching", "TableBusy")]
        assert f'pid {reader.info.backend_pid} (month\'s end, role "postgres")' in why(report)
    assert converge(database, **DETACH) == [("finish detaching", "done")]


@FORMS
@pytest.mark.parametrize("on_delete", ["NO ACTION", "CASCADE"])
def test_rows_that_others_refer_to_stay_and_their_tables_are_named(
    database: Database, form: str, on_delete: str
) -> None:
    database.execute(form)
    database.execute(f"""
        CREATE TABLE item (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run ON DELETE {on_delete});
        INSERT INTO item SELECT id, submitted_at FROM run WHERE submitted_at < '2018-01-04Z' AND id > 1 ORDER BY 1""")
    ((referring,),) = database.query("SELECT count(*) FROM item WHERE at >= '2018-01-01Z'")
    report = keep(database.dsn, **DETACH)
    assert verbs(report) == []
    said = [each.message for each in report.after.findings if each.reason == "RowsReferenced"]
    assert len(said) == 1
    assert f"public.item ({referring})" in said[0]
    assert attached(database) is True
    database.execute("DELETE FROM item")
    assert converge(database, **DETACH) == [("detach", "done")]
    assert rows_of_2018(database) == ROWS


@FORMS
def test_a_row_that_comes_to_be_referred_to_meanwhile_keeps_it_too(database: Database, form: str) -> None:
    database.execute(form)
    database.execute("CREATE TABLE item (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run)")
    set_comment(database, "mine")
    refer = "INSERT INTO item SELECT id, submitted_at FROM run WHERE submitted_at = '2018-01-02Z'"
    report = keep_before(database.dsn, "DETACH PARTITION", lambda: database.execute(refer), **DETACH)
    assert verbs(report) == [("detach", "RowsReferenced")]
    assert "1 row of public.item" in why(report)
    assert attached(database) is True
    assert comment(database) == "mine"


def test_a_key_to_the_partition_itself_goes_with_it(database: Database) -> None:
    database.execute(f"""{YEARS}
        CREATE TABLE item (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run_2018);
        INSERT INTO item SELECT id, submitted_at FROM run_2018""")
    assert converge(database, **DETACH) == [("detach", "done")]


def test_while_another_operator_works_nothing_is_done(database: Database) -> None:
    database.execute(YEARS)
    with database.connect() as other:
        other.execute(f"SELECT pg_advisory_lock({ADVISORY_CLASS}, 'run'::regclass::oid::int)".encode())
        assert verbs(keep(database.dsn, patience=0.5, **DETACH)) == [("detach", "AnotherOperator")]
        assert attached(database) is True
    assert converge(database, **DETACH) == [("detach", "done")]


@FORMS
def test_two_operators_at_once(database: Database, form: str) -> None:
    database.execute(form)
    for year in range(2005, 2018):
        database.execute(
            f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        )
    said: list[tuple[str, str]] = []
    all_of_them = {**DETACH, "retention": {**DETACH["retention"], "maxRetirements": 14}}
    both = [threading.Thread(target=lambda: said.extend(verbs(keep(database.dsn, **all_of_them)))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert {reason for _, reason in said} <= {"done", "AnotherOperator", "TableChanged", "TableBusy"}
    converge(database, **all_of_them)
    assert database.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass") == [
        (1 if form == YEARS else 2,)
    ]
    assert rows_of_2018(database) == ROWS


MEANWHILE = {
    "detached by hand": "ALTER TABLE run DETACH PARTITION run_2018",
    "other bounds": """ALTER TABLE run DETACH PARTITION run_2018;
        DELETE FROM run_2018 WHERE submitted_at > '2018-06-30Z';
        ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2018-07-01Z')""",
    "made anew": """DROP TABLE run_2018;
        CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')""",
    "renamed": "ALTER TABLE run_2018 RENAME TO run_old; ALTER TABLE run_2026 RENAME TO run_2018",
    "dropped": "DROP TABLE run_2018",
    "another parent": "ALTER TABLE run RENAME TO gone; CREATE TABLE run (LIKE gone) PARTITION BY RANGE (submitted_at)",
}


@FORMS
@pytest.mark.parametrize("what", MEANWHILE)
@pytest.mark.parametrize("moment", [FIRST_QUERY, TRANSACTION])
def test_a_partition_that_changed_since_it_was_observed_is_not_detached(
    database: Database, form: str, what: str, moment: str
) -> None:
    database.execute(form)
    catalog = "SELECT inhrelid, inhparent, inhdetachpending FROM pg_inherits ORDER BY 1"
    after: list[list[tuple[object, ...]]] = []

    def change() -> None:
        database.execute(MEANWHILE[what])
        after.append(database.query(catalog))

    report = keep_before(database.dsn, moment, change, **DETACH)
    assert verbs(report) == [("detach", "TableChanged")]
    assert database.query(catalog) == after[0]
    assert database.query("SELECT FROM pg_description WHERE description ~ 'partwarden'") == []


@FORMS
def test_a_session_killed_before_any_round_trip_loses_no_row_and_the_next_run_does_the_rest(
    server: Server, form: str
) -> None:
    trip = 1
    while True:
        with server.new_database() as database:
            database.execute(form)
            set_comment(database, "mine")
            try:
                keep_while(database.dsn, trip, lambda: kill_others(database), **DETACH)
            except DatabaseUnreachable:
                assert rows_of_2018(database) == ROWS
            except AssertionError:
                break  # There were fewer.
            assert {reason for _, reason in converge(database, **DETACH)} <= {"done"}
            assert attached(database) is False
            assert rows_of_2018(database) == ROWS
            said, held = marker.read(comment(database))
            assert said == "mine"
            assert held is not None
            assert held.phase is Phase.DETACHED
        trip += 1
    assert trip > 8


@FORMS
def test_a_session_killed_after_any_ddl_loses_no_row_and_the_next_run_does_the_rest(server: Server, form: str) -> None:
    killed = 0
    while True:
        with server.new_database() as database:
            database.execute(form)
            # The chosen command ends its own session as soon as it has been carried out.
            database.execute("""
                CREATE FUNCTION count_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                  PERFORM set_config(
                    'lab.done', (coalesce(current_setting('lab.done', true), '0')::int + 1)::text, false);
                  IF current_setting('lab.done') = current_setting('lab.last', true) THEN
                    PERFORM pg_terminate_backend(pg_backend_pid());
                  END IF;
                END $$;
                CREATE EVENT TRIGGER count_ddl ON ddl_command_end EXECUTE FUNCTION count_ddl()""")
            database.execute(f'ALTER DATABASE "{database.name}" SET lab.last = {killed + 1}')
            try:
                report = keep(database.dsn, **DETACH)
            except DatabaseUnreachable:
                killed += 1
                assert rows_of_2018(database) == ROWS
                database.execute(f'DROP EVENT TRIGGER count_ddl; ALTER DATABASE "{database.name}" RESET lab.last')
                converge(database, **DETACH)
                assert attached(database) is False
                assert rows_of_2018(database) == ROWS
            else:
                assert verbs(report) == [("detach", "done")]
                break
    assert killed >= 3  # comment, detach, comment


def test_an_operator_that_dies_while_it_waits_leaves_nothing_that_does_not_heal(database: Database) -> None:
    database.execute(YEARS)
    with database.connect() as reader:

        def begin() -> None:
            reader.execute("BEGIN; SELECT count(*) FROM run")
            threading.Thread(target=_kill_when_waiting, args=(database, reader.info.backend_pid)).start()

        with pytest.raises(DatabaseUnreachable):
            keep_before(database.dsn, "CONCURRENTLY", begin, **DETACH)
        assert attached(database) is None
        reader.execute("COMMIT")
    converge(database, **DETACH)
    assert attached(database) is False
    assert rows_of_2018(database) == ROWS


def _kill_when_waiting(database: Database, but: int) -> None:
    until(
        "the detach waits",
        lambda: database.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND wait_event_type = 'Lock' AND application_name = 'partwarden' AND pid <> {but}"
        ),
    )


def test_a_partition_that_a_user_attached_again_is_left_alone(database: Database) -> None:
    database.execute(YEARS)
    converge(database, **DETACH)
    database.execute("ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')")
    assert converge(database, **DROP) == []
    assert attached(database) is True
    assert rows_of_2018(database) == ROWS


def test_an_interrupted_run_that_marked_only_leaves_a_partition_like_any_other(database: Database) -> None:
    database.execute(YEARS)
    with pytest.raises(DatabaseUnreachable):
        keep_before(database.dsn, "CONCURRENTLY", lambda: kill_others(database), **DETACH)
    held = mark(database)
    assert held is not None
    assert held.phase is Phase.DETACHING
    assert attached(database) is True
    # The policy keeps it longer meanwhile: the mark alone does nothing.
    assert converge(database, **KEEP_ALL) == []
    assert attached(database) is True
    assert converge(database, **DETACH) == [("detach", "done")]
