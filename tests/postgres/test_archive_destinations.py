"""Archives on every kind of destination, each on a real server, and what fails there: the cause is reported, and
nothing that could be taken for an archive is left. What damage and interruption do: see test_archive_create.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lab.azure import AzureServer
from lab.cluster import Reporter
from lab.front import Answer, Request
from lab.gcs import GCSServer
from lab.operator import until
from lab.postgres import Database, free_port
from lab.proxy import Proxy, Toward
from lab.s3 import S3Server
from lab.small_disk import small_volume
from partwarden.api.destination import Destination
from partwarden.archive import create, storage, verify
from partwarden.archive.job_order import STORAGE_PREFIX, JobSpec, Report, Task
from partwarden.archive.manifest import DATA, MANIFEST, TableName
from partwarden.archive.objectstore import PART
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.storage import Store
from partwarden.errors import (
    ArchiveDamaged,
    DatabaseUnreachable,
    DeletionRefused,
    DestinationDenied,
    DestinationFull,
    DestinationNotFound,
    DestinationUnreachable,
    DumpFailed,
    ObjectExists,
    SecretInvalid,
    SecretKeyMissing,
)
from partwarden.postgres.conninfo import from_dsn
from support import zoo
from support.archived import use_client
from support.places import (
    AZURE,
    KINDS,
    OLD,
    PLAIN,
    PREFIX,
    SERVICES,
    Place,
    busy,
    destination,
    fronted,
    objects,
    on_azure,
    on_gcs,
    secret,
)

FILL = """
ALTER TABLE zoo ADD t text;
INSERT INTO zoo (at, n, t) SELECT '2020-05-05', n,
  (SELECT string_agg(md5(n || 'of' || i), '') FROM generate_series(1, 40) i) FROM generate_series(1, 30000) n
"""
"""Some 38 MB, which no compression makes less than half of: more than one part."""
FEW = {**storage.RETRIES, "max_retries": 1}
LARGE = [bytes([number]) * (1 << 20) for number in range((PART >> 20) + 2)]
"""Of two parts."""
REFUSED = r"the credentials were refused: \w.*; correct them|AuthorizationFailure: .*: check the credentials"
"""The second is azurite's answer; Azure calls it AuthenticationFailed."""
ODD = ("100%/a%2Fb/data.dump", "a b+c&d=e/ü€/data.dump", ".hidden/x..y/~*'()!;:@,/data.dump", "data.dump")
everywhere = pytest.mark.parametrize("place", KINDS, indirect=True)
services = pytest.mark.parametrize("place", SERVICES, indirect=True)


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


def make(database: Database, store: Store, place: Destination) -> Report:
    return create.archive(order(place), from_dsn(database.dsn), store, lambda line: None)


def again(report: Report, database: Database, store: Store, place: Destination) -> Report:
    proven = {"location": report.location, "sha256": report.sha256, "manifest_sha256": report.manifest_sha256}
    return create.check(order(place, task=Task.CHECK, **proven), from_dsn(database.dsn), store)


def whole(store: Store, key: str) -> bytes:
    return b"".join(store.get(key))


@everywhere
def test_a_job_archives_proves_and_restores_there(plain: Database, place: Place) -> None:
    """By the environment that the pod of a Job has."""
    spec = order(place.destination(), mount=str(place.folder or "/"))
    pod = {STORAGE_PREFIX + key.replace(".", "_"): value for key, value in place.secret.items()}
    store = storage.of_job(spec, pod)
    assert pod == {}
    report = make(plain, store, spec.destination)
    assert report.location.startswith(f"{spec.destination}/{plain.name}/public.zoo/zoo_2020/0001-")
    folder = report.location.removeprefix(f"{spec.destination}/")
    assert place.shelf().files() == [f"{folder}/{name}" for name in (DATA, MANIFEST)]
    assert make(plain, store, spec.destination) == report
    assert place.shelf().files() == [f"{folder}/{name}" for name in (DATA, MANIFEST)]
    assert again(report, plain, store, spec.destination).ok
    archived = verify.read(store, folder, report.manifest_sha256)
    done = restore(archived, from_dsn(plain.dsn), RestoreRequest(schema="public", name="again"), lambda line: None)
    assert (done.rows, done.left_off) == (report.rows, ())
    assert plain.query("SELECT * FROM again EXCEPT ALL SELECT * FROM zoo_2020") == []


@everywhere
def test_what_is_written_is_read_and_listed_whatever_its_name(place: Place) -> None:
    store, odd = place.store(), place.store(url=place.given.get("url", "") + "/50%/ü'~$")
    with pytest.raises(ArchiveDamaged, match="is not there"):
        whole(store, "none/data.dump")
    with pytest.raises(DestinationNotFound) if place.folder else pytest.raises(StopIteration):
        next(store.below("none", DATA))
    for key in ODD:
        store.put(key, [key.encode(), b"!"])
        if not place.folder:
            odd.put(key, [key.encode(), b"?"])
    store.put("empty/other", [])
    assert [whole(store, key) for key in ODD] == [f"{key}!".encode() for key in ODD]
    assert whole(store, "empty/other") == b""
    assert sorted(store.below("100%", DATA)) == [ODD[0]]
    if not place.folder:
        assert [whole(odd, key) for key in ODD] == [f"{key}?".encode() for key in ODD]
        assert sorted(odd.below("", DATA)) == sorted(ODD)
    assert set(ODD) <= set(place.shelf().files())


@everywhere
def test_nothing_is_overwritten(place: Place) -> None:
    """Nor where another attempt has written it meanwhile, if the service knows conditions."""
    store, shelf = place.store(), place.shelf()
    store.put("a/b", [b"first"])
    with pytest.raises(ObjectExists, match="a/b exists already, and is never overwritten"):
        store.put("a/b", [b"second"])

    def overtaken() -> Iterator[bytes]:
        shelf.write("c/d", b"first")
        yield b"second"

    if place.kind != OLD:
        with pytest.raises(ObjectExists):
            store.put("c/d", overtaken())
        assert whole(store, "c/d") == b"first"
    assert whole(store, "a/b") == b"first"


@everywhere
def test_a_large_object_comes_back_and_an_interrupted_one_is_none(place: Place) -> None:
    store, shelf = place.store(), place.shelf()

    def interrupted() -> Iterator[bytes]:
        yield from LARGE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put("a/b", interrupted())
    assert shelf.files() == []
    store.put("a/b", LARGE)
    assert whole(store, "a/b") == b"".join(LARGE)
    assert shelf.files() == ["a/b"]
    with pytest.raises(ObjectExists):
        store.put("a/b", LARGE)


def attempts(store: Store) -> Iterator[Any]:
    """All that is done with a store."""
    yield lambda: store.put("a/b", [b"small"])
    yield lambda: store.put("a/b", LARGE)
    yield lambda: whole(store, "a/b")
    yield lambda: list(store.below("a", "b"))


@services
def test_wrong_credentials_are_reported(place: Place) -> None:
    for wrong in place.wrong:
        for attempt in attempts(place.store(secret=wrong)):
            with pytest.raises(DestinationDenied, match=REFUSED):
                attempt()
    assert place.shelf().files() == []


@services
def test_a_key_that_the_secret_lacks_is_named(place: Place) -> None:
    for key in place.secret:
        with pytest.raises(SecretKeyMissing, match=f"Secret storage of the destination has no {key}"):
            place.store(secret={**place.secret, key: " "})


@services
def test_a_missing_bucket_is_reported(place: Place) -> None:
    for attempt in attempts(place.store(url=place.missing())):
        with pytest.raises(DestinationNotFound, match=r"://none-such.*: the bucket is not there: .*; make it"):
            attempt()


@pytest.mark.parametrize("place", [PLAIN, AZURE], indirect=True)
def test_credentials_that_may_only_read_are_reported_when_writing_and_suffice_for_reading(place: Place) -> None:
    place.store().put("a/b", [b"first"])
    reader = place.store(secret=place.reading)
    assert (whole(reader, "a/b"), list(reader.below("", "b"))) == (b"first", ["a/b"])
    with pytest.raises(DestinationDenied, match="let them read, write and list"):
        reader.put("c/d", [b"second"])
    assert place.shelf().files() == ["a/b"]


def test_a_shared_access_signature_serves_as_well_as_the_accounts_key(azure: AzureServer, bound: Place) -> None:
    store = bound.store(secret={"sasToken": f"?{azure.sas()}\n"})
    store.put("a/b", LARGE)
    store.put("c/b", [b"small"])
    assert (whole(store, "a/b"), sorted(store.below("", "b"))) == (b"".join(LARGE), ["a/b", "c/b"])
    with pytest.raises(ObjectExists):
        store.put("c/b", [b"other"])


@pytest.fixture
def bound(azure: AzureServer) -> Iterator[Place]:
    """A container of Azure's."""
    azure.make_container("bound")
    yield on_azure(azure, "bound")
    azure.remove_container("bound")


def test_a_listing_of_several_pages_is_read_to_its_end_on_s3(s3: S3Server, bucket: str) -> None:
    folder = s3.folder / bucket / PREFIX / "a"
    for number in range(1001):
        (folder / f"{number:04}").mkdir(parents=True)
        (folder / f"{number:04}" / "b").touch()
    assert len(set(objects(s3, bucket).below("a", "b"))) == 1001


def test_a_listing_of_several_pages_is_read_to_its_end_on_azure(azure: AzureServer, bound: Place) -> None:
    pages = []

    def shorten(request: Request) -> None:
        if "comp=list" in request.target:
            request.target += "&maxresults=2"
            pages.append(request.target)

    keys = [f"a/{number}/b" for number in range(5)]
    for key in keys:
        bound.shelf().write(key, b"")
    with fronted(bound, shorten) as front:
        # A request with a signature of its own could not be changed.
        store = bound.store(front.port, secret={"sasToken": azure.sas()})
        assert sorted(store.below("a", "b")) == keys
    assert len(pages) == 3


def test_a_listing_of_several_pages_is_read_to_its_end_on_gcs(gcs: GCSServer) -> None:
    """The server knows no pages: they are cut from its answer."""
    pages = []

    def cut(request: Request) -> Answer | None:
        if "list-type=2" not in request.target:
            return None
        after = int(request.query.get("continuation-token", 0))
        body = gcs.front.answer(replace(request, target=re.sub("&?continuation-token=[0-9]+", "", request.target)))
        found = re.findall("<Contents>.*?</Contents>", body.content.decode(), re.DOTALL)
        pages.append(after)
        more = f"<NextContinuationToken>{after + 2}</NextContinuationToken>" if after + 2 < len(found) else ""
        listed = "".join(found[after : after + 2])
        return Answer(200, f"<ListBucketResult><Name>b</Name>{listed}{more}</ListBucketResult>".encode())

    gcs.make_bucket("pages")
    place = on_gcs(gcs, "pages")
    keys = [f"a/{number}/b" for number in range(5)]
    for key in keys:
        place.shelf().write(key, b"")
    with fronted(place, cut) as front:
        assert sorted(place.store(front.port).below("a", "b")) == keys
    assert pages == [0, 2, 4]
    gcs.remove_bucket("pages")


@services
def test_a_full_service_is_reported_and_leaves_nothing(place: Place) -> None:
    """As services say it that have no room: none of the emulators has a quota."""

    def full(request: Request) -> Answer | None:
        message = "<Error><Code>InsufficientStorage</Code><Message>The quota is used up.</Message></Error>"
        return Answer(507, message.encode()) if request.method == "PUT" else None

    with fronted(place, full) as front:
        store = place.store(front.port)
        for content in ([b"small"], LARGE):
            with pytest.raises(DestinationFull, match="The quota is used up: make room, or raise the quota"):
                store.put("a/b", content)
    assert place.shelf().files() == []
    place.store().put("a/b", LARGE)


@services
def test_a_service_that_is_too_slow_is_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = place.store()
    patient.put("a/b", LARGE)
    monkeypatch.setattr(storage, "WHOLE", timedelta(seconds=1))
    with Proxy("127.0.0.1", place.port) as proxy:
        store = place.store(proxy.port)
        for toward, attempt in (
            (Toward.CLIENT, lambda: whole(store, "a/b")),
            (Toward.SERVER, lambda: store.put("c/d", LARGE)),
            (Toward.CLIENT, lambda: store.remove("a/b")),
        ):
            struck = proxy.swallow(toward, 0)
            with pytest.raises(DestinationUnreachable, match="no answer in time"):
                attempt()
            assert struck.is_set()
            proxy.heal()
    assert place.shelf().files() in (["a/b"], [])
    patient.put("e/f", [b"small"])


@services
def test_a_busy_service_is_asked_again_and_reported_in_the_end(place: Place) -> None:
    for times in (1, 2):
        with fronted(place, busy(times)) as front:
            store = place.store(front.port)
            if times == 1:
                store.put("a/b", [b"first"])
                continue
            with pytest.raises(DestinationUnreachable, match="ServerBusy: Please reduce your request rate"):
                store.put("c/d", [b"first"])
    assert place.shelf().files() == ["a/b"]


@services
def test_a_server_that_does_not_answer_is_reported(place: Place) -> None:
    for attempt in attempts(place.store(free_port("127.0.0.1"))):
        with pytest.raises(DestinationUnreachable, match="Connection refused"):
            attempt()


def test_a_host_that_no_name_server_knows_is_reported(s3: S3Server, bucket: str) -> None:
    with pytest.raises(DestinationUnreachable, match="the name of the host is not known"):
        whole(objects(s3, bucket, "http://no-such-host.invalid"), "a/b")


@services
def test_a_connection_lost_half_way_leaves_nothing_to_be_taken_for_an_object(place: Place) -> None:
    with Proxy("127.0.0.1", place.port) as proxy:
        store = place.store(proxy.port)
        struck = proxy.cut(Toward.SERVER, PART // 2)
        with pytest.raises(DestinationUnreachable, match="a/b: "):
            store.put("a/b", LARGE)
        assert struck.is_set()
        assert place.shelf().files() == []
        proxy.heal()
        store.put("a/b", LARGE)
        struck = proxy.cut(Toward.CLIENT, PART // 2)
        with pytest.raises(DestinationUnreachable, match="a/b: "):
            whole(store, "a/b")
        assert struck.is_set()
        proxy.heal()
        assert whole(store, "a/b") == b"".join(LARGE)


def test_a_short_outage_is_survived(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "RETRIES", {**storage.RETRIES, "max_retries": 6})
    with Proxy(s3.host, s3.port) as proxy, ThreadPoolExecutor(1) as pool:
        store = objects(s3, bucket, s3.endpoint_over(proxy))
        struck = proxy.cut(Toward.SERVER, PART // 2)
        healed = pool.submit(_heal, proxy, struck)
        store.put("a/b", LARGE)
        assert struck.is_set()
        healed.result()
        assert whole(store, "a/b") == b"".join(LARGE)


def _heal(proxy: Proxy, struck: threading.Event) -> None:
    assert struck.wait(60)
    proxy.heal()


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


def test_the_servers_certificate_is_checked_against_the_ca_of_the_secret(secured: S3Server) -> None:
    place = destination(secured, "archives")
    objects(secured, "archives").put("a/b", [b"first"])
    without = storage.by_destination(place, {**secret(secured), "ca.crt": ""})
    with pytest.raises(DestinationUnreachable, match=r"not trusted \(UnknownIssuer\): give the CA .* as ca.crt"):
        whole(without, "a/b")
    with pytest.raises(SecretInvalid, match="Secret storage cannot be used: No certificates found"):
        storage.by_destination(place, {**secret(secured), "ca.crt": "none"})


def test_a_connection_lost_while_reading_back_proves_nothing(plain: Database, s3: S3Server, bucket: str) -> None:
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
        report = make(plain, store, place)
        assert report.bytes > PART
        assert again(report, plain, store, place).ok
        assert [name.rpartition("/")[2] for name in s3.objects(bucket)].count(DATA) == 2
        assert s3.unfinished(bucket) == []


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


LOCKED = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = "
LOCKED += "(SELECT oid FROM pg_database WHERE datname = current_database())"


READ = f"SELECT count(*) FROM pg_stat_activity JOIN ({LOCKED}) holder USING (pid) "
READ += "WHERE state = 'idle in transaction' AND query LIKE 'COPY%'"


@pytest.mark.parametrize("place", [PLAIN], indirect=True)
def test_an_abandoned_attempt_that_completes_late_harms_no_other(plain: Database, place: Place) -> None:
    """It has read all rows when it loses its session, and with it the lock; its dump goes on, and is uploaded late."""
    plain.execute(FILL)
    shelf, store = place.shelf(), place.store()
    others: list[Report] = []

    def overtake() -> None:
        until("all rows are read", lambda: plain.query(READ) == [(1,)])
        plain.query(f"SELECT pg_terminate_backend(pid) FROM ({LOCKED}) holder")
        until("the lock is free", lambda: plain.query(LOCKED) == [])
        others.append(make(plain, store, place.destination()))

    shelf.moment, shelf.what = f"during {DATA}", overtake
    with pytest.raises((DatabaseUnreachable, DumpFailed)):
        create.archive(order(place.destination()), from_dsn(plain.dsn), shelf, lambda line: None)
    assert (len(shelf.files(DATA)), len(shelf.files(MANIFEST))) == (2, 1)
    assert again(others[0], plain, store, place.destination()).ok


def test_a_full_server_is_reported_and_leaves_nothing() -> None:
    with small_volume() as disk, S3Server.start(Reporter(), folder=disk.folder) as server:
        server.make_bucket("archives")
        store = objects(server, "archives")
        disk.fill()
        with pytest.raises(DestinationFull, match="No space left on device: make room, or raise the quota"):
            store.put("a/b", LARGE)
        assert server.objects("archives") == []
        disk.free()
        store.put("a/b", LARGE)


@everywhere
def test_what_is_removed_is_gone_and_what_is_not_there_is_no_error(place: Place) -> None:
    store, shelf = place.store(), place.shelf()
    for key in ODD:
        store.put(key, [key.encode()])
    store.put("large/b", LARGE)
    store.put("stays/b", [b"other"])
    for key in (*ODD, "large/b"):
        assert (store.remove(key), store.remove(key), store.remove(f"{key}/more")) == (False, False, False)
        with pytest.raises(ArchiveDamaged, match="is not there"):
            whole(store, key)
    assert shelf.files() == ["stays/b"]


@services
def test_what_keeps_an_object_from_being_removed_is_reported(place: Place) -> None:
    place.store().put("a/b", [b"first"])
    for wrong in place.wrong:
        # Of azurite's answer it is not known whether the key or its rights are wrong.
        with pytest.raises((DestinationDenied, DeletionRefused), match=f"{REFUSED}|the credentials may not delete"):
            place.store(secret=wrong).remove("a/b")
    # Azure's answer to a deletion of several tells a missing blob from no missing container.
    if place.kind != AZURE:
        with pytest.raises(DestinationNotFound, match=r"://none-such.*: the bucket is not there"):
            place.store(url=place.missing()).remove("a/b")
    with pytest.raises(DestinationUnreachable, match="Connection refused"):
        place.store(free_port("127.0.0.1")).remove("a/b")
    # azurite answers 500 where a token may not delete one of several.
    if place.kind == PLAIN:
        with pytest.raises(DeletionRefused, match="the credentials may not delete"):
            place.store(secret=place.reading).remove("a/b")
    assert place.shelf().files() == ["a/b"]
