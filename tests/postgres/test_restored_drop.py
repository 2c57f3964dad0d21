"""A restored table is dropped again by ``expireAfter`` only while nothing in it changed and its archive restores it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.postgres import Database
from partwarden.archive import restored_drop
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import Report
from partwarden.archive.manifest import Say
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.restored_once import Restored
from partwarden.errors import (
    ArchiveDamaged,
    ContentsChanged,
    DatabaseUnreachable,
    InsufficientPrivilege,
    PartwardenError,
    StatementRejected,
    TableKept,
)
from partwarden.planner import marker
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import Archived, archive, drop_order, use_client
from support.meanwhile import kill_others

UID = "0a4bd22c-94a1-4f0e-8f3e-000000000001"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


class World:
    """A table that was restored from an archive, and what is asked of it."""

    def __init__(self, database: Database, folder: Path, owner: str = "") -> None:
        """``owner``: of the partitioned table, and so of what is restored."""
        self.database, self.folder, self.dsn = database, folder, database.dsn
        specimen = zoo.build(database, "by date")
        if owner:
            database.execute(f"GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE zoo OWNER TO {owner}")
        self.archived: Archived = archive(database, specimen, folder)
        self.made = self.bring()

    def bring(self) -> Restored:
        """Restore it, also once more after the table was dropped."""
        wish = RestoreRequest(name="again", uid=UID)
        self.made = restore(self.archived, from_dsn(self.database.dsn), wish, lambda line: None)
        return self.made

    def drop(self, say: Say = lambda line: None, **more: object) -> Report:
        order = drop_order(str(more.pop("uid", UID)), self.made, self.archived, self.folder, **more)
        return restored_drop.drop(order, from_dsn(self.dsn), Folder(self.folder, "pvc://archives"), say)

    @property
    def name(self) -> str:
        """What the table is called now."""
        ((name,),) = self.database.query("SELECT %s::regclass::text", self.made.oid)
        return str(name)

    def there(self) -> bool:
        """Whether there is a table of that OID, whatever it is called."""
        return bool(self.database.query("SELECT FROM pg_class WHERE oid = %s", self.made.oid))


@pytest.fixture
def world(pg_database: Database, tmp_path: Path) -> World:
    return World(pg_database, tmp_path)


def test_a_table_in_which_nothing_changed_goes_and_a_second_run_finds_it_gone(world: World) -> None:
    """VACUUM, ANALYZE, grants, and a row that is as it was again, change nothing."""
    world.database.execute("VACUUM FULL again")
    world.database.execute("ANALYZE again; GRANT SELECT ON again TO PUBLIC")
    world.database.execute("CREATE TABLE kept AS TABLE again; DELETE FROM again; INSERT INTO again TABLE kept")
    lines: list[str] = []
    first, second = world.drop(lines.append), world.drop(lines.append)
    assert not world.there()
    for report in (first, second):
        assert (report.ok, report.oid, report.rows) == (True, world.made.oid, 12)
    assert [line for line in lines if line.startswith("public.again")] == [
        "public.again is dropped",
        "public.again is gone already",
    ]


def test_a_login_that_is_no_superuser_drops_it_as_the_owner_or_not_at_all(
    pg_database: Database, tmp_path: Path
) -> None:
    owner, login = pg_database.new_role(), pg_database.new_role()
    world = World(pg_database, tmp_path, owner.name)
    assert pg_database.query("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'again'") == [
        (owner.name,)
    ]
    world.dsn = login.dsn
    with pytest.raises(InsufficientPrivilege):
        world.drop()
    assert world.there()
    pg_database.execute(f"GRANT {owner.name} TO {login.name}")
    world.drop()
    assert not world.there()


CHANGED: dict[str, tuple[str, type[PartwardenError], str]] = {
    "a row more": ("INSERT INTO again SELECT * FROM again LIMIT 1", ContentsChanged, "it holds 13 rows"),
    "a row less": ("DELETE FROM again WHERE ctid = (SELECT min(ctid) FROM again)", ContentsChanged, "it holds 11 rows"),
    "a column": ("ALTER TABLE again ADD note text", TableKept, "it was altered"),
    "a column, dropped again": ("ALTER TABLE again ADD x int; ALTER TABLE again DROP x", TableKept, "it was altered"),
    "a constraint": ("ALTER TABLE again ADD CHECK (true)", TableKept, "it was altered"),
    "an index": ("CREATE INDEX ON again ((1))", TableKept, "it was altered"),
    "its name": ("ALTER TABLE again RENAME TO mine", TableKept, "it was altered"),
    "its schema": ("CREATE SCHEMA kept; ALTER TABLE again SET SCHEMA kept", TableKept, "it was altered"),
    "a rule": ("CREATE RULE r AS ON DELETE TO again DO ALSO NOTHING", TableKept, "it was altered"),
    "a comment of the user's": (
        "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE again IS %L', 'keep!' || chr(10) || "
        "obj_description('again'::regclass)); END $$",
        TableKept,
        "it was altered",
    ),
    "no comment": ("COMMENT ON TABLE again IS NULL", TableKept, "does not say any more"),
    "a child": ("CREATE TABLE child () INHERITS (again)", TableKept, "another table inherits from it"),
    "a view": ("CREATE VIEW v AS SELECT 1 FROM again", StatementRejected, "other objects depend on it"),
    "a sequence": ("CREATE SEQUENCE s OWNED BY again.n", TableKept, "it is tied to sequence"),
    "a publication": ("CREATE PUBLICATION p FOR TABLE again", TableKept, "it is tied to publication"),
}


def test_what_the_user_changed_keeps_the_table(world: World) -> None:
    for what, (statement, kind, words) in CHANGED.items():
        world.database.execute(statement)
        with pytest.raises(kind, match=words):
            world.drop()
        assert world.there(), what
        world.database.execute(f"DROP TABLE {world.name} CASCADE")
        world.bring()


ADDS_A_TRIGGER = """
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION add() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  IF to_regclass('public.again') IS NOT NULL THEN
    CREATE TRIGGER noted BEFORE INSERT ON public.again FOR EACH ROW EXECUTE FUNCTION public.note();
    CREATE RULE counted AS ON DELETE TO public.again DO ALSO NOTHING;
  END IF;
END $$;
CREATE EVENT TRIGGER adds ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION add()"""


def test_a_trigger_or_rule_that_is_switched_off_keeps_the_table(world: World) -> None:
    """They were there when it was restored: their definitions are as they were."""
    world.database.execute(f"DROP TABLE again; {ADDS_A_TRIGGER}")
    world.bring()
    for what in ("TRIGGER noted", "RULE counted"):
        world.database.execute(f"ALTER TABLE again DISABLE {what}")
        with pytest.raises(TableKept, match="it was altered"):
            world.drop()
        world.database.execute(f"ALTER TABLE again ENABLE {what}")
    world.drop()
    assert not world.there()


def test_what_is_changed_while_the_archive_is_read_keeps_the_table(world: World) -> None:
    def write(line: str) -> None:
        if line.startswith("reading the archive back"):
            world.database.execute("INSERT INTO again SELECT * FROM again LIMIT 1")

    with pytest.raises(ContentsChanged):
        world.drop(write)
    assert world.there()


def test_an_archive_that_is_gone_damaged_or_another_keeps_the_table(world: World) -> None:
    with pytest.raises(ArchiveDamaged, match="but 0000"):
        world.drop(manifest_sha256="0" * 64)
    with pytest.raises(ArchiveDamaged, match="not known which manifest"):
        world.drop(manifest_sha256="")
    (data,) = world.folder.rglob("data.dump")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(ArchiveDamaged):
        world.drop()
    data.write_bytes(whole)
    (manifest,) = world.folder.rglob("manifest.json")
    manifest.unlink()
    with pytest.raises(ArchiveDamaged):
        world.drop()
    assert world.there()


def test_an_archive_that_is_deleted_while_the_rows_are_compared_keeps_the_table(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, calls = restored_drop._compare, list[str]()

    def compared(*given: object, hurry: bool) -> None:
        compare(*given, hurry=hurry)  # type: ignore[arg-type]
        calls.append("under the lock" if hurry else "before")
        if hurry:
            (manifest,) = world.folder.rglob("manifest.json")
            manifest.unlink()

    monkeypatch.setattr(restored_drop, "_compare", compared)
    with pytest.raises(ArchiveDamaged):
        world.drop()
    assert calls == ["before", "under the lock"]
    assert world.there()


def test_another_server_a_clock_behind_and_a_forged_mark_keep_the_table(world: World) -> None:
    with pytest.raises(TableKept, match="it was restored on server 1/2, and this is"):
        world.drop(server="1/2")
    with pytest.raises(TableKept, match="by the clock of the database server"):
        world.drop(due=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(TableKept, match="for which PartitionRestore"):
        world.drop(uid=UID.replace("1", "2"))
    ((oid, text),) = world.database.query(
        "SELECT oid::int8, obj_description(oid) FROM pg_class WHERE relname = 'again'"
    )
    mark = marker.read_restored(str(text), int(str(oid)))
    assert mark is not None
    forged = marker.write_restored(None, marker.RestoredMark(mark.oid, UID, 12, 0, "")).replace("'", "''")
    world.database.execute(f"COMMENT ON TABLE again IS '{forged}'")
    with pytest.raises(TableKept, match="it was altered"):
        world.drop()
    assert world.there()


@pytest.mark.parametrize("step", ["lock", "compare", "drop"])
def test_what_is_lost_under_the_lock_leaves_the_table_and_the_next_run_drops_it(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    functions = {"lock": "restored_once.lock", "compare": "_compare", "drop": "ddl.relation"}
    target = f"partwarden.archive.restored_drop.{functions[step]}"
    module, _, name = functions[step].rpartition(".")
    owner = getattr(restored_drop, module) if module else restored_drop
    original = getattr(owner, name)

    def lose(*given: object, **more: object) -> object:
        result = original(*given, **more)
        if step != "compare" or more["hurry"]:
            kill_others(world.database)
        return result

    with monkeypatch.context() as patched:
        patched.setattr(target, lose)
        with pytest.raises(DatabaseUnreachable):
            world.drop()
    assert world.there()
    world.drop()
    assert not world.there()


def test_a_report_that_is_lost_after_the_commit_is_made_again(world: World) -> None:
    def die(line: str) -> None:
        if line.endswith("is dropped"):
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        world.drop(die)
    assert not world.there()
    assert world.drop().oid == world.made.oid
