"""No command runs code of others with the rights of a superuser that is connected: of the table's owner, or strangers'.

The owner's functions stand wherever PostgreSQL calls them, also while it only plans a query, and the database names a
schema of a stranger first in its search_path, in which everything of the catalog has a double that calls a function.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.retention import KeyEncoding
from partwarden.archive import restored_drop
from partwarden.archive.folder import Folder
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.verify import open_archive
from partwarden.cli.main import main
from partwarden.controller.database_work import (
    KeySearch,
    Supervisor,
    TableSearch,
    find_keys,
    find_remains,
    find_table,
)
from partwarden.controller.dump_progress import CopySearch, find_copy
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.archived import drop_order, use_client
from support.code_of_others import DEFAULT, Theirs, made
from support.meanwhile import keep
from support.retirement import DETACH, KEEP_ALL, verbs

DOUBLES = """
    CREATE SCHEMA doubles;
    CREATE FUNCTION doubles.spy() RETURNS bool LANGUAGE plpgsql AS $$
    BEGIN RAISE LOG 'code of others: % ran double as %.', current_database(), current_user; RETURN true; END $$;
    CREATE FUNCTION doubles.same(oid, oid) RETURNS bool LANGUAGE sql
      AS 'SELECT doubles.spy() AND $1::int8 = $2::int8';
    CREATE FUNCTION doubles.same(name, name) RETURNS bool LANGUAGE sql
      AS 'SELECT doubles.spy() AND $1::text = $2::text';
    CREATE OPERATOR doubles.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = doubles.same);
    CREATE OPERATOR doubles.= (LEFTARG = name, RIGHTARG = name, FUNCTION = doubles.same);
    DO $$
    DECLARE name text; columns text;
    BEGIN
      FOR name, columns IN
        SELECT c.relname, string_agg(CASE WHEN a.atttypid = 'anyarray'::regtype
                                     THEN format('%1$I::text AS %1$I', attname) ELSE quote_ident(attname) END, ', ')
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
          AND has_table_privilege(c.oid, 'SELECT') GROUP BY c.relname
      LOOP
        EXECUTE format('CREATE VIEW doubles.%1$I AS SELECT %2$s FROM pg_catalog.%1$I WHERE doubles.spy()',
                       name, columns);
      END LOOP;
    END $$;
    GRANT USAGE ON SCHEMA doubles TO PUBLIC;
"""
STRANGERS = """
    CREATE SCHEMA strangers;
    CREATE TABLE strangers.part_config (parent_table text, premake int, retention text);
    CREATE INDEX ON strangers.part_config ((public.code('strangers'' index')));
    CREATE TABLE strangers.others (submitted_at timestamptz NOT NULL, CHECK (public.code('strangers'' check') > 0))
      PARTITION BY RANGE (submitted_at);
    CREATE TABLE strangers.others_2026 PARTITION OF strangers.others
      FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
    CREATE INDEX ON strangers.others ((public.code('strangers'' index')));
"""
POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {{name: run}}
spec: {{table: {{name: run}}, startFrom: "2026-01-01", premake: 1, defaultPartition: {{drain: Auto}},
       retention: {{keepFor: {keep}, onExpire: Drop, archive: {{pvc: {{claimName: archives}}}}}}}}
"""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)


def doubtful(database: Database) -> Theirs:
    """The table of an owner, with rows that point to large objects, and what strangers have beside it."""
    theirs = made(database)
    theirs.execute(f"""{DEFAULT} ALTER TABLE run ADD doc oid; SELECT lo_create(0);
        CREATE STATISTICS s ON (public.code('statistics', a)), submitted_at FROM run;
        CREATE POLICY p ON run USING (public.code('constant policy') > 0);
        ALTER TABLE run ENABLE ROW LEVEL SECURITY; ANALYZE run""")
    stranger = database.new_role()
    database.execute(f"""GRANT CREATE ON DATABASE "{database.name}" TO {stranger.name};
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC""")
    with session(from_dsn(stranger.dsn)) as connection:
        connection.execute(f"{STRANGERS} {DOUBLES}".encode())
    database.execute(f'ALTER DATABASE "{database.name}" SET search_path = doubles, pg_catalog, public')
    theirs.others.add(stranger.name)
    return theirs


def command(theirs: Theirs, *arguments: str, codes: tuple[int, ...] = (0,), text: str | None = None) -> str:
    done = CliRunner().invoke(main, [*arguments, "--dsn", theirs.login], input=text, catch_exceptions=False)
    assert done.exit_code in codes, (arguments, done.output)
    theirs.ran()
    return done.stdout


def test_commands_that_only_read_run_nothing_as_the_login(database: Database, tmp_path: Path) -> None:
    theirs = doubtful(database)
    theirs.ran()
    table = ("--table", "public.run")
    command(theirs, "list", codes=(0, 1, 2))
    command(theirs, "stats", "--exact")
    command(theirs, "health", codes=(0, 1, 2))
    command(theirs, "timeline", codes=(0, 1, 2))
    command(theirs, "report", "--html", str(tmp_path / "report.html"))
    command(theirs, "import")
    command(theirs, "plan", "-f", "-", text=POLICY.format(keep="5y"), codes=(0, 1, 2))
    found = command(theirs, "explain", "SELECT FROM public.run WHERE submitted_at > '2026-05-05Z'", codes=(0, 2))
    assert "strangers" not in found
    command(theirs, "explain", "SELECT FROM public.run", *table, codes=(0, 2))
    both = "SELECT FROM public.run JOIN strangers.others USING (submitted_at)"
    done = CliRunner().invoke(main, ["explain", both, "--dsn", theirs.login])
    assert "of several owners" in done.output
    theirs.ran()


def test_commands_that_change_run_nothing_as_the_login(database: Database, tmp_path: Path) -> None:
    theirs = doubtful(database)
    command(theirs, "apply", "-f", "-", text=POLICY.format(keep="50y"))
    command(theirs, "create", "2031", "--table", "public.run")
    command(theirs, "auto", "3", "--table", "public.run")
    url = command(theirs, "archive", "--partition", "public.run_2018", "--to", str(tmp_path)).strip()
    command(theirs, "restore", "--manifest", url, "--as", "public.again")
    command(theirs, "drop", "public.run_2018", "--table", "public.run", "--archive", url, "--yes")
    command(theirs, "restore", "--manifest", url, "--attach")


def test_the_operator_runs_nothing_as_the_login(database: Database) -> None:
    theirs = doubtful(database)
    long_ago = {**DETACH, "maintenance": {"onClose": "VacuumAndReindex"}}
    assert ("detach", "done") in verbs(keep(theirs.login, **long_ago))
    theirs.ran()
    assert ("attach again", "done") in verbs(keep(theirs.login, **KEEP_ALL))
    theirs.ran()
    search = TableSearch(
        connection=from_dsn(theirs.login),
        connect_timeout=10,
        schema="public",
        name="run_2018",
        oid=None,
        server="",
        encoding=KeyEncoding.NATIVE,
        client=18,
    )
    found = find_table(search, Supervisor())
    assert found.parent is not None
    find_remains(search, Supervisor())
    find_copy(CopySearch(connection=search.connection, connect_timeout=10, oid=found.partition.oid), Supervisor())
    find_keys(KeySearch(connection=search.connection, connect_timeout=10, first=7), Supervisor())
    theirs.ran()


def test_a_conversion_runs_nothing_as_the_login(database: Database) -> None:
    theirs = doubtful(database)
    theirs.execute("""CREATE TABLE public.plain (id int PRIMARY KEY, at timestamptz NOT NULL,
          CHECK (public.code('check', id) < 1000000));
        INSERT INTO public.plain SELECT g, now() FROM generate_series(1, 10) g;
        CREATE INDEX ON public.plain ((public.code('constant index')))""")
    there = ("convert", "--table", "public.plain", "--key", "at", "--interval", "Year", "--widen-keys")
    command(theirs, *there, "--plan")
    command(theirs, *there, "--yes")
    command(theirs, "convert", "--table", "public.plain", "--undo", "--yes")


UID = "0a4bd22c-94a1-4f0e-8f3e-000000000002"


@pytest.mark.parametrize("parent", ["", "DROP TABLE run"], ids=["with its parent", "without"])
def test_what_is_restored_for_a_while_runs_nothing_as_the_login(
    database: Database, tmp_path: Path, parent: str
) -> None:
    """Restored and dropped again as the Jobs of a PartitionRestore do it, while the parent is there or not: what would
    run as the superuser is left off, and named."""
    theirs = doubtful(database)
    url = command(theirs, "archive", "--partition", "public.run_2018", "--to", str(tmp_path)).strip()
    with session(from_dsn(theirs.owner.dsn)) as connection:
        connection.execute(f"SET search_path = public; {parent}".encode())
    source = open_archive(url)
    wish = RestoreRequest(schema="public", name="again", uid=UID)
    restored = restore(source, from_dsn(theirs.login), wish, lambda line: None)
    theirs.ran()
    left_off = {each.name: str(each) for each in restored.left_off}
    if not parent:
        assert left_off == {}
    else:
        assert left_off.keys() >= {"a", "twice"}
        assert f"public.code(text,integer) of role '{theirs.owner.name}'" in left_off["a"]
        assert "it is integer, was" in left_off["a"]
        assert "the stored values are there" in left_off["twice"]
        with database.connect() as connection:
            connection.execute("SET search_path = public")
            found = connection.execute("SELECT sum(a), sum(twice) FROM again").fetchone()
        assert found == (55, 65)
    order = drop_order(UID, restored, source, tmp_path)
    report = restored_drop.drop(order, from_dsn(theirs.login), Folder(tmp_path, "pvc://archives"), lambda line: None)
    assert report.ok
    theirs.ran()
