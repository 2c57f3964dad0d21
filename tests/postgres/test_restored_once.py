"""A table is made once for a PartitionRestore, however often, by however many, and whenever that is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.archives import oid as table_oid
from lab.postgres import Database
from partwarden.api.destination import PVC, Destination
from partwarden.archive import restore_job
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import Report, RestoreOrder
from partwarden.archive.manifest import Say
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.restored_once import Restored
from partwarden.archive.restored_table import LeftOff, Source
from partwarden.errors import AnotherOperator, ArchiveDamaged, DatabaseUnreachable, NameTaken
from partwarden.planner import marker
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import Archived, archive, use_client
from support.meanwhile import kill_others, relations

UID = "0a4bd22c-94a1-4f0e-8f3e-000000000001"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@pytest.fixture
def archived(pg_database: Database, tmp_path: Path) -> Archived:
    """Twelve rows; their table is there still."""
    return archive(pg_database, zoo.build(pg_database, "by date"), tmp_path)


def bring(source: Source, database: Database, say: Say = lambda line: None, uid: str = UID, **more: object) -> Restored:
    wish = RestoreRequest(**{"name": "again", "uid": uid, **more})  # type: ignore[arg-type]
    return restore(source, from_dsn(database.dsn), wish, say)


def comment(database: Database, table: str) -> str:
    ((text,),) = database.query("SELECT obj_description(%s::regclass)", table)
    return str(text)


def test_a_second_run_finds_the_table_under_whatever_name(archived: Archived, pg_database: Database) -> None:
    first = bring(archived, pg_database)
    assert (first.name, first.rows) == ("again", 12)
    assert comment(pg_database, "again").startswith(f"restored from archive {archived.manifest.id}")
    pg_database.execute("CREATE SCHEMA kept; ALTER TABLE again SET SCHEMA kept; ALTER TABLE kept.again RENAME TO mine")
    before = relations(pg_database)
    second = bring(archived, pg_database)
    assert (second.schema, second.name, second.oid, second.rows) == ("kept", "mine", first.oid, 12)
    assert relations(pg_database) == before


def test_another_restore_of_the_same_archive_is_another_table(archived: Archived, pg_database: Database) -> None:
    bring(archived, pg_database)
    with pytest.raises(NameTaken):
        bring(archived, pg_database, uid=UID.replace("1", "2"))
    assert bring(archived, pg_database, uid=UID.replace("1", "2"), name="twice").name == "twice"


def test_a_partition_that_came_back_is_found_too_and_keeps_the_mark_of_retention(
    archived: Archived, pg_database: Database
) -> None:
    pg_database.execute("DROP TABLE zoo_2020")
    first = bring(archived, pg_database, name=None, attach=True)
    assert (first.name, first.attached) == ("zoo_2020", "public.zoo")
    text = comment(pg_database, "zoo_2020")
    _, detached = marker.read(text)
    assert detached is not None
    assert detached.phase is marker.Phase.RESTORED
    second = bring(archived, pg_database, name=None, attach=True)
    assert (second.oid, second.attached) == (first.oid, "public.zoo")


STEPS = ("loading", "comparing")


@pytest.mark.parametrize("step", STEPS)
def test_what_is_lost_before_the_commit_leaves_nothing_and_is_made_again(
    archived: Archived, pg_database: Database, step: str
) -> None:
    before = relations(pg_database)

    def lose(line: str) -> None:
        if line.startswith(step):
            kill_others(pg_database)

    with pytest.raises(DatabaseUnreachable):
        bring(archived, pg_database, lose)
    assert relations(pg_database) == before
    assert bring(archived, pg_database).rows == 12


def test_what_is_lost_right_after_the_commit_is_found(
    archived: Archived, pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends once the table is there, and before anything has reported it."""

    def die(_: object) -> bool:
        raise SystemExit(143)

    with monkeypatch.context() as patched:
        patched.setattr("partwarden.postgres.transaction.confirmed", die)
        with pytest.raises(SystemExit):
            bring(archived, pg_database)
    before = relations(pg_database)
    assert bring(archived, pg_database).rows == 12
    assert relations(pg_database) == before


def test_of_two_at_the_same_time_one_makes_the_table(archived: Archived, pg_database: Database) -> None:
    """A pod that was taken for dead goes on while its successor begins."""
    found: list[object] = []

    def second(line: str) -> None:
        if line.startswith("comparing"):
            with pytest.raises(AnotherOperator, match="its advisory lock is taken"):
                bring(archived, pg_database, name="other")
            found.append(line)

    first = bring(archived, pg_database, second)
    assert len(found) == 1
    assert bring(archived, pg_database, name="other").oid == first.oid
    assert pg_database.query("SELECT to_regclass('other')") == [(None,)]


def test_one_that_begins_while_another_commits_finds_its_table(archived: Archived, pg_database: Database) -> None:
    made: list[Restored] = []

    def first(line: str) -> None:
        if line.startswith("checking"):
            thread = threading.Thread(target=lambda: made.append(bring(archived, pg_database)))
            thread.start()
            thread.join()

    assert bring(archived, pg_database, first).oid == made[0].oid


FORGED: dict[str, Callable[[int], str]] = {
    "of another table": lambda oid: marker.write_restored(None, marker.RestoredMark(oid + 1, UID, 12)),
    "no JSON": lambda oid: f"{marker.RESTORED_LABEL} {UID}",
    "the UID in a text": lambda oid: f"made by hand for {UID}",
    "a count that is none": lambda oid: (
        f'{marker.RESTORED_LABEL} {{"oid": {oid}, "uid": "{UID}", "rows": -1, "leftOff": 0}}'
    ),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_comment_that_is_no_mark_of_its_own_table_is_not_believed(
    archived: Archived, pg_database: Database, how: str
) -> None:
    pg_database.execute("CREATE TABLE forged (a int)")
    oid = table_oid(pg_database, "forged")
    text = FORGED[how](oid).replace("'", "''")
    pg_database.execute(f"COMMENT ON TABLE forged IS '{text}'")
    assert bring(archived, pg_database).name == "again"


def order(archived: Archived, folder: Path, **more: object) -> RestoreOrder:
    fields = {
        "uid": UID,
        "location": archived.url.replace(f"file://{folder}", "pvc://archives"),
        "destination": Destination(pvc=PVC(claim_name="archives")),
        "name": "again",
        "manifest_sha256": archived.manifest_sha256,
        **more,
    }
    return RestoreOrder.model_validate(fields)


def run(order: RestoreOrder, database: Database, folder: Path) -> Report:
    return restore_job.run(order, from_dsn(database.dsn), Folder(folder, "pvc://archives"), lambda line: None)


def test_the_job_reports_the_table_twice_alike(archived: Archived, pg_database: Database, tmp_path: Path) -> None:
    first, second = (run(order(archived, tmp_path), pg_database, tmp_path) for _ in range(2))
    ((oid,),) = pg_database.query("SELECT 'again'::regclass::oid::int8")
    for report in (first, second):
        assert (report.ok, report.rows, report.oid) == (True, 12, oid)
        assert report.restored is not None
        assert (report.restored.schema_, report.restored.name) == ("public", "again")
    assert first.server == second.server != ""


def test_the_job_reports_what_was_left_off_as_far_as_there_is_room() -> None:
    left = tuple(LeftOff("Type", "ü" * 60, "x" * 500) for _ in range(50))
    made = Restored("public", "again", 12, None, (), left, len(left), 1)
    table = restore_job._table(made)
    assert table.left_off_count == 50
    assert 0 < len(table.left_off) < 20
    assert len(Report(ok=True, restored=table).model_dump_json(by_alias=True).encode()) < 3000


def test_the_job_restores_nothing_but_what_was_proven(
    archived: Archived, pg_database: Database, tmp_path: Path
) -> None:
    before = relations(pg_database)
    for wanted in (
        order(archived, tmp_path, manifest_sha256="0" * 64),
        order(archived, tmp_path, location="pvc://another/place"),
    ):
        with pytest.raises(ArchiveDamaged):
            run(wanted, pg_database, tmp_path)
    assert relations(pg_database) == before
    pg_database.execute("CREATE TABLE again ()")
    with pytest.raises(NameTaken, match=r"make another PartitionRestore, with another spec\.as\.name, or rename it"):
        run(order(archived, tmp_path), pg_database, tmp_path)
