"""Archives on real stores and servers: read again without a database, and deleted, unless the store keeps them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import S3Store

from lab.cluster import Reporter
from lab.postgres import Database
from lab.s3 import S3Server
from partwarden.api.destination import PVC, Destination
from partwarden.archive import create, table_lookup
from partwarden.archive.expiry import VERSIONS, expire
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import DATA, EXPIRED, MANIFEST, TableName
from partwarden.archive.objectstore import Objects
from partwarden.archive.storage import Store
from partwarden.errors import ArchiveDamaged, DeletionRefused, DestinationNotFound, TableChanged
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import use_client
from support.places import PREFIX, destination, objects


@pytest.fixture
def plain(pg_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    use_client(monkeypatch)
    zoo.build(pg_database, "by date")
    return pg_database


def made(database: Database, store: Store, place: Destination) -> tuple[Report, JobSpec]:
    """An archive, and what a Job is to read or delete of it without its database."""
    partition = TableName(schema_="public", name="zoo_2020", oid=0)
    wanted = JobSpec(task=Task.ARCHIVE, id="zoo-1", partition=partition, destination=place)
    report = create.archive(wanted, from_dsn(database.dsn), store, lambda line: None)
    proven = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    known = {"partition": partition.model_copy(update={"oid": report.oid}), "server": report.server}
    return report, wanted.model_copy(update={**proven, **known, "task": Task.VERIFY})


def test_an_archive_is_read_again_without_its_database_and_then_deleted(plain: Database, tmp_path: Path) -> None:
    store = Folder(tmp_path)
    report, order = made(plain, store, Destination(pvc=PVC(claim_name="archives")))
    plain.execute("DROP TABLE zoo")
    again = create.check(order, None, store)
    assert (again.ok, again.server, again.sha256, again.oid) == (True, "", report.sha256, report.oid)
    assert expire(order, store, lambda line: None).ok
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
    with pytest.raises(ArchiveDamaged):
        create.check(order, None, store)


def test_what_a_bucket_keeps_is_reported_and_deleted_once_it_may_be(plain: Database, s3: S3Server, bucket: str) -> None:
    place, store = destination(s3, bucket), objects(s3, bucket)
    report, order = made(plain, store, place)
    reader = S3Store(
        bucket,
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.reader.access_key,
        secret_access_key=s3.reader.secret_key,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    folder = report.location.removeprefix(store.url(""))
    text = b"".join(store.get(f"{folder}/{MANIFEST}"))
    assert hashlib.sha256(text).hexdigest() == report.manifest_sha256
    store.put(f"{folder}/{EXPIRED}", [text])
    with pytest.raises(DeletionRefused, match=r"Access Denied.*the bucket keeps it"):
        expire(order, Objects(reader, store.prefix, store.base), lambda line: None)
    names = [each.rsplit("/", 1)[1] for each in s3.objects(bucket)]
    assert sorted(names) == [DATA, EXPIRED, MANIFEST]
    done = expire(order, store, lambda line: None)
    assert (done.ok, done.message) == (True, "")
    assert s3.objects(bucket) == []


LOCKED = "locked"


@pytest.fixture(scope="module")
def versioned() -> Iterator[S3Server]:
    with S3Server.start(Reporter(), versions=True) as server:
        yield server


def test_what_object_lock_keeps_is_reported_and_no_other_object_is_deleted(plain: Database, s3: S3Server) -> None:
    s3.make_bucket(LOCKED, locking=True)
    try:
        report, order = made(plain, objects(s3, LOCKED), destination(s3, LOCKED))
        names = s3.objects(LOCKED)
        s3.lock(LOCKED, f"{PREFIX}/{report.location.removeprefix(f's3://{LOCKED}/{PREFIX}/')}/{MANIFEST}", "2099-01-01")
        with pytest.raises(DeletionRefused, match=r"cannot be deleted: AccessDenied: .* object lock; the bucket"):
            expire(order, objects(s3, LOCKED), lambda line: None)
        assert [each for each in s3.objects(LOCKED) if not each.endswith(EXPIRED)] == names
    finally:
        s3.remove_bucket(LOCKED)


def test_versions_that_a_bucket_keeps_are_reported_also_where_they_are_locked(
    plain: Database, versioned: S3Server
) -> None:
    """As on Amazon's own service, where Object Lock needs versions: a deletion succeeds, and only hides."""
    versioned.make_bucket(LOCKED, locking=True)
    store = objects(versioned, LOCKED)
    report, order = made(plain, store, destination(versioned, LOCKED))
    folder = report.location.removeprefix(store.url(""))
    versioned.lock(LOCKED, f"{PREFIX}/{folder}/{DATA}", "2099-01-01")
    done = expire(order, store, lambda line: None)
    assert (done.ok, done.message) == (True, VERSIONS)
    assert [list(store.below("", each)) for each in (DATA, MANIFEST, EXPIRED)] == [[], [], []]
    listed = versioned.ask("GET", f"/{LOCKED}", query={"versions": ""}).content.decode()
    kept = re.findall(r"<Version>.*?<Key>(.*?)</Key>", listed)
    assert sorted(each.rpartition("/")[2] for each in kept) == [DATA, EXPIRED, MANIFEST]
    # The next attempt, where the first could not report.
    assert expire(order.model_copy(update={"begun": True}), store, lambda line: None).ok


def test_a_bucket_that_is_gone_is_no_deletion(s3: S3Server) -> None:
    with pytest.raises(DestinationNotFound):
        objects(s3, "not-there").remove("object")


def test_what_remains_of_a_table_is_found_by_its_oid_and_by_its_name(plain: Database) -> None:
    ((oid,),) = plain.query("SELECT 'zoo_2020'::regclass::oid::int8")
    with session(from_dsn(plain.dsn)) as connection:
        server = table_lookup.find(connection, "public", "zoo_2020").server

        def left(name: str = "zoo_2020", of: str = server) -> list[str]:
            there, now = table_lookup.remains(connection, "public", name, int(str(oid)), of)
            assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)
            return [str(each) for each in there]

        assert left() == ["public.zoo_2020"]
        plain.execute("ALTER TABLE zoo_2020 RENAME TO elsewhere")
        assert left() == ["public.elsewhere"]
        plain.execute("CREATE VIEW zoo_2020 AS SELECT 1 AS n")
        assert left() == ["public.elsewhere", "public.zoo_2020"]
        plain.execute("DROP VIEW zoo_2020; DROP TABLE zoo")
        assert left() == []
        with pytest.raises(TableChanged):
            left(of="1/1")
