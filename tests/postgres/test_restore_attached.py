"""An archive restored as a partition of its table, or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.archive.manifest import Say
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.restored_once import Restored
from partwarden.archive.restored_table import Source
from partwarden.errors import (
    AnotherOperator,
    CannotAttach,
    DatabaseUnreachable,
    NameTaken,
    NotOwner,
    PartwardenError,
    TableBusy,
    TableNotFound,
)
from partwarden.planner import marker
from partwarden.planner.marker import Phase
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support import zoo
from support.archived import Archived, archive, contents, quoted, use_client
from support.meanwhile import at_gate, gate, kill_others, relations

OURS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
ADVISORY = "SELECT pg_advisory_lock(x'70617274'::int, 'zoo'::regclass::oid::int)"
DROP: dict[str, Any] = {"keepFor": "1y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s"}


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


def bring_back(source: Source, database: Database, say: Say = lambda line: None, **wish: object) -> Restored:
    return restore(source, from_dsn(database.dsn), RestoreRequest(**{"attach": True, "patience": 0.0, **wish}), say)  # type: ignore[arg-type]


def attached(database: Database, specimen: zoo.Specimen) -> bool:
    table, parent = (f"{quoted(specimen.schema)}.{quoted(each)}" for each in (specimen.partition, specimen.parent))
    return bool(
        database.query(
            "SELECT FROM pg_inherits WHERE inhrelid = %s::regclass AND inhparent = %s::regclass", table, parent
        )
    )


def keep(database: Database, **retention: Any) -> Report:
    """Does once what a policy with that retention says of the table of the zoo."""
    fields = {"table": {"name": "zoo"}, "startFrom": "2026-01-01", "premake": 0, "retention": retention}
    with session(from_dsn(database.dsn)) as connection:
        return maintain(connection, TableSpec.model_validate(fields), patience=10.0)


@pytest.fixture
def dressed(pg_database: Database, tmp_path: Path) -> Archived:
    """Of a table with everything that a table can wear; its partition of 2020 is gone."""
    found = archive(pg_database, zoo.build(pg_database, "dressed"), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    return found


SPECIMEN = zoo.ZOO["dressed"]


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_specimen_becomes_a_partition_again(pg_database: Database, tmp_path: Path, name: str) -> None:
    if name not in zoo.living(pg_database.server.major):
        return
    specimen = zoo.build(pg_database, name)
    before = contents(pg_database, specimen)
    found = archive(pg_database, specimen, tmp_path)
    pg_database.execute(f"DROP TABLE {quoted(specimen.schema)}.{quoted(specimen.partition)}")
    restored = bring_back(found, pg_database)
    assert restored.attached == f"{specimen.schema}.{specimen.parent}"
    assert attached(pg_database, specimen)
    assert contents(pg_database, specimen) == before


def test_restored_rows_are_new_to_an_older_snapshot(dressed: Archived, pg_database: Database) -> None:
    """It finds the partition, and none of its rows: the table as it was."""
    count = "SELECT count(*) FROM zoo WHERE tableoid::regclass::text = 'zoo_2020'"
    with pg_database.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        restored = bring_back(dressed, pg_database)
        assert reader.execute(count.encode()).fetchone() == (0,)
    assert restored.rows > 0
    assert pg_database.query(count) == [(restored.rows,)]


def test_a_restored_partition_is_like_every_other_partition(dressed: Archived, pg_database: Database) -> None:
    """What a partition has that was just made, but for its names and its mark."""
    owner = pg_database.new_role()
    pg_database.execute(f"""ALTER TABLE zoo OWNER TO {owner.name}; GRANT SELECT ON zoo TO pg_monitor;
        ALTER TABLE zoo ENABLE ROW LEVEL SECURITY; GRANT ALL ON SCHEMA public TO {owner.name};
        CREATE TABLE zoo_2021 PARTITION OF zoo FOR VALUES FROM ('2021-01-01Z') TO ('2022-01-01Z');
        ALTER TABLE zoo_2021 OWNER TO {owner.name}; GRANT SELECT ON zoo_2021 TO pg_monitor;
        ALTER TABLE zoo_2021 ENABLE ROW LEVEL SECURITY""")
    bring_back(dressed, pg_database)
    shape = """
        SELECT relowner::regrole::text, ARRAY(SELECT unnest(relacl)::text ORDER BY 1), relrowsecurity,
          ARRAY(SELECT replace(pg_get_indexdef(indexrelid), '{0}', '') FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
          ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE conrelid = c.oid AND contype <> 'n'
                ORDER BY 1),
          ARRAY(SELECT tgname::text FROM pg_trigger t WHERE tgrelid = c.oid AND NOT tgisinternal),
          ARRAY(SELECT ARRAY[attname, pg_get_expr(adbin, adrelid)] FROM pg_attribute a
                LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = c.oid AND attnum > 0)
        FROM pg_class c WHERE relname = '{0}'"""
    restored, made = (pg_database.query(shape.format(name)) for name in ("zoo_2020", "zoo_2021"))
    assert restored == made


def test_the_rows_do_not_fire_triggers(dressed: Archived, pg_database: Database) -> None:
    bring_back(dressed, pg_database)
    assert pg_database.query("SELECT count(*) FROM zoo WHERE note = 'quiet'") == [(1,)]


def test_retention_leaves_it_alone_until_the_mark_is_taken_away(dressed: Archived, pg_database: Database) -> None:
    bring_back(dressed, pg_database)
    ((comment,),) = pg_database.query("SELECT obj_description('zoo_2020'::regclass)")
    text, mark = marker.read(str(comment))
    assert text == f"restored from archive {dressed.manifest.id} of public.zoo_2020"
    assert mark is not None
    assert mark.phase is Phase.RESTORED
    for retention in ({"keepFor": "1y"}, DROP):
        report = keep(pg_database, **retention)
        assert report.outcomes == ()
        assert "ExpiredLeftAlone" in [each.reason for each in report.after.findings]
    pg_database.execute("COMMENT ON TABLE zoo_2020 IS NULL")
    report = keep(pg_database, keepFor="1y")
    assert [(each.action.verb, each.error) for each in report.outcomes] == [("detach", None)]


def test_a_restored_partition_is_not_dropped_when_a_user_detaches_it(dressed: Archived, pg_database: Database) -> None:
    bring_back(dressed, pg_database)
    pg_database.execute("ALTER TABLE zoo DETACH PARTITION zoo_2020")
    report = keep(pg_database, **DROP)
    assert report.outcomes == ()
    assert pg_database.query("SELECT count(*) FROM zoo_2020") == [(61,)]


def test_columns_that_the_table_has_got_since_have_their_defaults(dressed: Archived, pg_database: Database) -> None:
    pg_database.execute("ALTER TABLE zoo ADD later text NOT NULL DEFAULT 'then', ADD none int")
    bring_back(dressed, pg_database)
    assert pg_database.query("SELECT DISTINCT later, none FROM zoo_2020") == [("then", None)]


OVERLAP = "CREATE TABLE other PARTITION OF zoo FOR VALUES FROM ('2020-06-01Z') TO ('2020-07-01Z')"
DEFAULT = "CREATE TABLE rest PARTITION OF zoo DEFAULT; INSERT INTO zoo (at) VALUES ('2020-03-03Z')"
MISFITS: dict[str, tuple[str, type[PartwardenError], str]] = {
    "a column is gone": ("ALTER TABLE zoo DROP note CASCADE", CannotAttach, "has no such column"),
    "a column is another": ("ALTER TABLE zoo ALTER id TYPE int", CannotAttach, "'id' of the archive is bigint"),
    "an overlap": (OVERLAP, CannotAttach, r"partition public\.other .* holds what the archive held"),
    "rows in DEFAULT": (DEFAULT, CannotAttach, "cannot attach table"),
    "rows that it refers to are gone": (
        "DELETE FROM species WHERE id = 3",
        CannotAttach,
        "foreign key .*, in 7 rows, by column species; leave out --attach",
    ),
    "a CHECK that is new": ("ALTER TABLE zoo ADD CHECK (note <> 'quiet')", PartwardenError, "check"),
    "no such table": ("ALTER TABLE zoo RENAME TO elsewhere", TableNotFound, "--parent"),
    "another key": (
        "DROP TABLE zoo; CREATE TABLE zoo (at timestamptz, id bigint) PARTITION BY RANGE (id)",
        CannotAttach,
        "not partitioned by RANGE of 'at'",
    ),
    "the name is taken": ("CREATE TABLE zoo_2020 (a int)", NameTaken, "--as"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_table_that_does_not_fit_is_refused_and_leaves_nothing(
    dressed: Archived, pg_database: Database, what: str
) -> None:
    change, error, words = MISFITS[what]
    pg_database.execute(change)
    before = relations(pg_database)
    with pytest.raises(error, match=words):
        bring_back(dressed, pg_database)
    assert relations(pg_database) == before


def test_a_parent_that_changes_during_the_load_leaves_nothing(dressed: Archived, pg_database: Database) -> None:
    def overlap(line: str) -> None:
        if line.startswith("comparing"):
            pg_database.execute(OVERLAP)

    with pytest.raises(CannotAttach, match="overlap"):
        bring_back(dressed, pg_database, overlap)
    assert pg_database.query("SELECT to_regclass('zoo_2020')") == [(None,)]


def test_with_a_default_partition(dressed: Archived, pg_database: Database) -> None:
    pg_database.execute("CREATE TABLE rest PARTITION OF zoo DEFAULT; INSERT INTO zoo (at) VALUES ('1999-03-03Z')")
    bring_back(dressed, pg_database, patience=30.0)
    assert attached(pg_database, SPECIMEN)


def test_without_a_bound(pg_database: Database, tmp_path: Path) -> None:
    pg_database.execute("""CREATE TABLE zoo (at date NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM (MINVALUE) TO ('2021-01-01');
        INSERT INTO zoo VALUES ('2020-01-01')""")
    specimen = zoo.Specimen("", rows=1, bounds=("MINVALUE", "2021-01-01"))
    found = archive(pg_database, specimen, tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    bring_back(found, pg_database)
    assert attached(pg_database, specimen)


def test_to_another_table_under_another_name(dressed: Archived, pg_database: Database) -> None:
    pg_database.execute("""CREATE SCHEMA odd; CREATE TABLE odd.zoo (LIKE zoo) PARTITION BY RANGE (at)""")
    restored = bring_back(dressed, pg_database, parent=("odd", "zoo"), schema="odd", name="zoo_old")
    assert restored.attached == "odd.zoo"
    assert pg_database.query("SELECT count(*) FROM odd.zoo") == [(61,)]


def test_nothing_of_the_table_is_locked_while_rows_are_loaded(dressed: Archived, pg_database: Database) -> None:
    seen = []

    def lock(line: str) -> None:
        if line.startswith("comparing"):
            with pg_database.connect() as other, other.transaction():
                other.execute("LOCK TABLE zoo, species IN ACCESS EXCLUSIVE MODE NOWAIT")
                seen.append(line)

    bring_back(dressed, pg_database, lock)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("lock", "error"),
    [
        ("BEGIN; LOCK TABLE zoo IN SHARE UPDATE EXCLUSIVE MODE", TableBusy),
        ("BEGIN; LOCK TABLE species IN ROW EXCLUSIVE MODE", TableBusy),
        (ADVISORY, AnotherOperator),
    ],
)
def test_a_short_lock_holder_is_waited_for(
    dressed: Archived, pg_database: Database, lock: str, error: type[PartwardenError]
) -> None:
    """With patience it is attached when they have gone; without, nothing is there."""
    before = relations(pg_database)
    with pg_database.connect() as other:

        def block(line: str) -> None:
            if line.startswith("attaching"):
                other.execute(lock.encode())

        with pytest.raises(error):
            bring_back(dressed, pg_database, block)
        assert relations(pg_database) == before
    with pg_database.connect() as other:

        def block_briefly(line: str) -> None:
            if line.startswith("attaching"):
                other.execute(lock.encode())
                threading.Timer(1.0, other.close).start()

        bring_back(dressed, pg_database, block_briefly, patience=60.0)
    assert attached(pg_database, SPECIMEN)


@pytest.mark.parametrize("step", ["loading", "comparing", "attaching"])
def test_a_connection_that_is_lost_leaves_nothing(dressed: Archived, pg_database: Database, step: str) -> None:
    before = relations(pg_database)

    def lose(line: str) -> None:
        if line.startswith(step):
            kill_others(pg_database)

    with pytest.raises(DatabaseUnreachable):
        bring_back(dressed, pg_database, lose)
    assert relations(pg_database) == before


def test_a_connection_lost_right_before_the_commit_leaves_nothing(dressed: Archived, pg_database: Database) -> None:
    before = relations(pg_database)
    ended: list[BaseException] = []

    def restoring() -> None:
        try:
            bring_back(dressed, pg_database)
        except PartwardenError as error:
            ended.append(error)

    with gate(pg_database):
        thread = threading.Thread(target=restoring)
        thread.start()
        _wait(lambda: at_gate(pg_database))
        _kill(pg_database)
        thread.join(timeout=60)
    pg_database.execute("DROP FUNCTION at_gate")
    assert [type(each) for each in ended] == [DatabaseUnreachable]
    assert relations(pg_database) == before


def _wait(condition: Callable[[], bool]) -> None:
    given_up = threading.Event()
    timer = threading.Timer(60, given_up.set)
    timer.start()
    while not condition():
        assert not given_up.is_set()
        given_up.wait(0.02)
    timer.cancel()


def _kill(database: Database) -> None:
    """The session that waits at the gate, and not the one that holds it."""
    database.query(f"SELECT pg_terminate_backend(pid) {OURS}")


def test_an_ordinary_owner_may_do_it(dressed: Archived, pg_database: Database) -> None:
    owner, other = pg_database.new_role(), pg_database.new_role()
    for each in (owner, other):
        pg_database.execute(f"GRANT ALL ON SCHEMA public TO {each.name}; GRANT ALL ON species TO {each.name}")
    pg_database.execute(f"ALTER TABLE zoo OWNER TO {owner.name}")
    with pytest.raises(NotOwner, match=owner.name):
        restore(dressed, from_dsn(other.dsn), RestoreRequest(attach=True), lambda line: None)
    restore(dressed, from_dsn(owner.dsn), RestoreRequest(attach=True), lambda line: None)
    assert attached(pg_database, SPECIMEN)


def test_a_process_killed_right_before_the_commit_leaves_nothing(dressed: Archived, pg_database: Database) -> None:
    before = relations(pg_database)
    command = [sys.executable, "-m", "partwarden", "restore", "--manifest", dressed.url, "--attach"]
    options: Any = {"stderr": subprocess.DEVNULL}
    with gate(pg_database), subprocess.Popen([*command, "--dsn", pg_database.dsn], **options) as process:
        try:
            _wait(lambda: at_gate(pg_database))
        finally:
            process.kill()
    # The server notices when it wants to answer.
    _wait(lambda: not pg_database.query(f"SELECT pid {OURS}"))
    pg_database.execute("DROP FUNCTION at_gate")
    assert relations(pg_database) == before
