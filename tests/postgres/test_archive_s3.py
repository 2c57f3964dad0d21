"""Archives on a real S3 server, and what fails there: the cause is reported, and nothing that could be taken for an
archive is left. What damage, interruption and a second attempt do is the same as in a folder: see test_archiving.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.cluster import Reporter
from lab.operator import until
from lab.postgres import Database, free_port
from lab.proxy import Proxy, Toward
from lab.s3 import Keys, S3Server
from lab.small_disk import small_volume
from partwarden.api.destination import Destination
from partwarden.archive import create, storage
from partwarden.archive.manifest import DATA, MANIFEST, JobSpec, Report, TableName, Task
from partwarden.archive.objectstore import PART, Objects
from partwarden.errors import (
    DatabaseUnreachable,
    DestinationDenied,
    DestinationFull,
    DestinationNotFound,
    DestinationUnreachable,
    DumpFailed,
    SecretInvalid,
    SecretKeyMissing,
)
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import use_client
from support.shelf import PREFIX, destination, objects, on_s3, secret

FILL = """
ALTER TABLE zoo ADD t text;
INSERT INTO zoo (at, n, t) SELECT '2020-05-05', n,
  (SELECT string_agg(md5(n || 'of' || i), '') FROM generate_series(1, 40) i) FROM generate_series(1, 30000) n
"""
"""Some 38 MB, which no compression makes less than half of: more than one part."""
FEW = {**storage.RETRIES, "max_retries": 1}


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)
    # Waiting longer is no other outcome.
    monkeypatch.setattr(storage, "RETRIES", FEW)


@pytest.fixture
def plain(pg_database: Database) -> Database:
    zoo.build(pg_database, "by date")
    return pg_database


def order(place: Destination, **fields: Any) -> JobSpec:
    partition = TableName(schema_="public", name="zoo_2020", oid=0)
    return JobSpec(task=Task.ARCHIVE, id="0001", partition=partition, destination=place).model_copy(update=fields)


def make(database: Database, store: Objects, place: Destination) -> Report:
    return create.archive(order(place), from_dsn(database.dsn), store, lambda line: None)


def again(report: Report, database: Database, store: Objects, place: Destination) -> Report:
    proven = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    return create.check(order(place, task=Task.CHECK, **proven), from_dsn(database.dsn), store)


def test_an_archive_on_s3_is_proven_and_not_made_again(plain: Database, s3: S3Server, bucket: str) -> None:
    place, store = destination(s3, bucket), objects(s3, bucket)
    report = make(plain, store, place)
    assert report.location.startswith(f"s3://{bucket}/{PREFIX}/{plain.name}/public.zoo/zoo_2020/0001-")
    kept = [f"{report.location.removeprefix(f's3://{bucket}/')}/{name}" for name in (DATA, MANIFEST)]
    assert (s3.objects(bucket), s3.unfinished(bucket)) == (kept, [])
    assert make(plain, store, place) == report
    assert s3.objects(bucket) == kept
    assert again(report, plain, store, place).ok


def test_a_large_archive_is_uploaded_in_parts(plain: Database, s3: S3Server, bucket: str) -> None:
    plain.execute(FILL)
    place, store = destination(s3, bucket), objects(s3, bucket)
    report = make(plain, store, place)
    assert report.bytes > PART
    assert again(report, plain, store, place).ok
    assert s3.unfinished(bucket) == []


MEMORY = """
import resource, sys
from partwarden.archive import storage
store = storage.to(sys.argv[1])
store.put("object", (bytes(1 << 20) for _ in range(int(sys.argv[2]))))
assert sum(map(len, store.get("object"))) == int(sys.argv[2]) << 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def variables(s3: S3Server, endpoint: str = "") -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    return {**os.environ, **keys, "AWS_ENDPOINT_URL": endpoint or s3.endpoint}


def test_memory_does_not_grow_with_the_object(s3: S3Server, bucket: str) -> None:
    peaks = []
    for megabytes in (256, 768):
        command = [sys.executable, "-c", MEMORY, f"s3://{bucket}/{megabytes}", str(megabytes)]
        done = subprocess.run(command, env=variables(s3), capture_output=True, text=True, timeout=120, check=True)
        peaks.append(int(done.stdout))
    small, large = peaks
    assert large < small + 2 * (PART >> 20)


@pytest.fixture(scope="module")
def secured() -> Iterator[S3Server]:
    with S3Server.start(Reporter(), tls=True) as server:
        server.make_bucket("archives")
        yield server


def test_the_servers_certificate_is_checked_against_the_ca_of_the_secret(plain: Database, secured: S3Server) -> None:
    place = destination(secured, "archives")
    assert make(plain, objects(secured, "archives"), place).ok
    without = storage.by_destination(place, {**secret(secured), "ca.crt": ""})
    with pytest.raises(DestinationUnreachable, match=r"not trusted \(UnknownIssuer\): give the CA .* as ca.crt"):
        make(plain, without, place)
    with pytest.raises(SecretInvalid, match="Secret storage cannot be used: No certificates found"):
        storage.by_destination(place, {**secret(secured), "ca.crt": "none"})


def test_wrong_credentials_are_reported(plain: Database, s3: S3Server, bucket: str) -> None:
    place = destination(s3, bucket)
    for name in ("accessKeyId", "secretAccessKey"):
        wrong = storage.by_destination(place, {**secret(s3), name: "wrong-wrong-wrong"})
        with pytest.raises(DestinationDenied, match=r"the credentials were refused: .*; correct them"):
            make(plain, wrong, place)
        with pytest.raises(SecretKeyMissing, match=f"Secret storage .* has no {name} or AWS_"):
            storage.by_destination(place, {**secret(s3), name: " "})
    assert s3.objects(bucket) == []


def test_read_only_credentials_are_reported_when_writing_and_suffice_for_reading(
    plain: Database, s3: S3Server, bucket: str
) -> None:
    place = destination(s3, bucket)
    report = make(plain, objects(s3, bucket), place)
    before = s3.objects(bucket)
    reader = storage.by_destination(place, as_secret(s3.reader))
    assert again(report, plain, reader, place).ok
    with pytest.raises(DestinationDenied, match=r"AccessDenied: .* let them read, write and list"):
        create.archive(order(place, id="0002"), from_dsn(plain.dsn), reader, lambda line: None)
    assert s3.objects(bucket) == before


def as_secret(keys: Keys) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}


def test_a_missing_bucket_is_reported(plain: Database, s3: S3Server) -> None:
    with pytest.raises(DestinationNotFound, match=r"the bucket is not there: NoSuchBucket: .*; make it"):
        make(plain, objects(s3, "none-such"), destination(s3, "none-such"))


def test_a_server_that_does_not_answer_is_reported(plain: Database, s3: S3Server, bucket: str) -> None:
    closed = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(DestinationUnreachable, match="Connection refused"):
        make(plain, objects(s3, bucket, closed), destination(s3, bucket, closed))
    silent = "http://no-such-host.invalid"
    with pytest.raises(DestinationUnreachable, match="the name of the host is not known"):
        make(plain, objects(s3, bucket, silent), destination(s3, bucket, silent))


def test_a_connection_lost_half_way_through_the_upload_leaves_nothing_to_be_taken_for_an_archive(
    plain: Database, s3: S3Server, bucket: str
) -> None:
    plain.execute(FILL)
    with Proxy(s3.host, s3.port) as proxy:
        endpoint = s3.endpoint_over(proxy)
        place, store = destination(s3, bucket, endpoint), objects(s3, bucket, endpoint)
        struck = proxy.cut(Toward.SERVER, PART // 2)
        with pytest.raises(DestinationUnreachable, match="s3://"):
            make(plain, store, place)
        assert struck.is_set()
        assert s3.objects(bucket) == []
        proxy.heal()
        assert make(plain, store, place).ok
    assert [name.rpartition("/")[2] for name in s3.objects(bucket)] == [DATA, MANIFEST]


def test_a_connection_lost_half_way_through_reading_back_proves_nothing(
    plain: Database, s3: S3Server, bucket: str
) -> None:
    plain.execute(FILL)
    with Proxy(s3.host, s3.port) as proxy:
        endpoint = s3.endpoint_over(proxy)
        place, store = destination(s3, bucket, endpoint), objects(s3, bucket, endpoint)
        cuts = []

        def lose(line: str) -> None:
            if line.startswith("reading"):
                cuts.append(proxy.cut(Toward.CLIENT, PART // 2))

        with pytest.raises(DestinationUnreachable, match=f"{DATA}: "):
            create.archive(order(place), from_dsn(plain.dsn), store, lose)
        assert cuts[0].is_set()
        assert [name.rpartition("/")[2] for name in s3.objects(bucket)] == [DATA]
        proxy.heal()
        # What was not proven is left as it is, and another made beside it.
        assert make(plain, store, place).ok
        assert [name.rpartition("/")[2] for name in s3.objects(bucket)].count(DATA) == 2


def test_an_interrupted_upload_does_not_wait_for_a_silent_server(plain: Database, s3: S3Server, bucket: str) -> None:
    plain.execute(FILL)
    with Proxy(s3.host, s3.port) as proxy:
        struck = proxy.swallow(Toward.SERVER, PART // 2)
        command = [sys.executable, "-m", "partwarden", "archive", "--dsn", plain.dsn]
        command += ["--partition", "zoo_2020", "--to", f"s3://{bucket}/{PREFIX}"]
        environment = variables(s3, s3.endpoint_over(proxy))
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            assert struck.wait(60)
            process.send_signal(signal.SIGTERM)
            # Requests have ten minutes.
            assert process.wait(timeout=120) == 143
    assert s3.objects(bucket) == []


def test_a_short_outage_is_survived(
    plain: Database, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.execute(FILL)
    monkeypatch.setattr(storage, "RETRIES", {**storage.RETRIES, "max_retries": 6})
    with Proxy(s3.host, s3.port) as proxy, ThreadPoolExecutor(1) as pool:
        endpoint = s3.endpoint_over(proxy)
        struck = proxy.cut(Toward.SERVER, PART // 2)
        healed = pool.submit(_heal, proxy, struck)
        assert make(plain, objects(s3, bucket, endpoint), destination(s3, bucket, endpoint)).ok
        assert struck.is_set()
        healed.result()


LOCKED = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = "
LOCKED += "(SELECT oid FROM pg_database WHERE datname = current_database())"


READ = f"SELECT count(*) FROM pg_stat_activity JOIN ({LOCKED}) holder USING (pid) "
READ += "WHERE state = 'idle in transaction' AND query LIKE 'COPY%'"


def test_an_abandoned_attempt_that_completes_late_harms_no_other(plain: Database, s3: S3Server, bucket: str) -> None:
    """It has read all rows when it loses its session, and with it the lock; its dump goes on, and is uploaded late."""
    plain.execute(FILL)
    place, shelf = destination(s3, bucket), on_s3(s3, bucket)
    others: list[Report] = []

    def overtake() -> None:
        until("all rows are read", lambda: plain.query(READ) == [(1,)])
        plain.query(f"SELECT pg_terminate_backend(pid) FROM ({LOCKED}) holder")
        until("the lock is free", lambda: plain.query(LOCKED) == [])
        others.append(make(plain, objects(s3, bucket), place))

    shelf.moment, shelf.what = f"during {DATA}", overtake
    with pytest.raises((DatabaseUnreachable, DumpFailed)):
        create.archive(order(place), from_dsn(plain.dsn), shelf, lambda line: None)
    names = [name.rpartition("/")[2] for name in s3.objects(bucket)]
    assert (names.count(DATA), names.count(MANIFEST)) == (2, 1)
    assert again(others[0], plain, objects(s3, bucket), place).ok


def _heal(proxy: Proxy, struck: threading.Event) -> None:
    assert struck.wait(60)
    proxy.heal()


def test_a_full_server_is_reported_and_leaves_nothing(plain: Database) -> None:
    plain.execute(FILL)
    with small_volume() as disk, S3Server.start(Reporter(), folder=disk.folder) as server:
        server.make_bucket("archives")
        place, store = destination(server, "archives"), objects(server, "archives")
        disk.fill()
        with pytest.raises(DestinationFull, match="No space left on device: make room, or raise the quota"):
            make(plain, store, place)
        assert server.objects("archives") == []
        disk.free()
        assert make(plain, store, place).ok
