"""Uploads in parts that nothing completed, on a real S3 server: those of archives that are old are removed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from lab.cluster import Reporter
from lab.front import Answer, Front, Request
from lab.s3 import S3Server
from partwarden.api.destination import S3, Destination
from partwarden.archive import storage
from partwarden.archive.expiry import remove_abandoned
from partwarden.archive.manifest import DATA, GENERATED, MANIFEST
from partwarden.archive.objectstore import Objects
from partwarden.archive.parquet import layout
from partwarden.cli import job
from partwarden.errors import DestinationDenied, DestinationUnreachable
from support.places import PREFIX, objects

NOW = -timedelta(days=1).total_seconds()
"""Older than this is all that was begun."""
OURS = [f"shop/public.run/run_2020/run-2020-0123456789-{number:08x}/{DATA}" for number in range(3)]
ODD = [
    f"100%/public.a%2Fb/x y+&~'ü€/id-0123456789-89abcdef/{GENERATED}",
    f"shop/run-2020-89abcdef/{layout.FOLDER}/table=run/year=2020/{layout.NAME}",
    f"shop/run-2020-89abcdef/{layout.FOLDER}/{layout.NAME}",
]
OTHERS = [
    f"shop/id-89abcdef/{layout.NAME}",
    f"shop/{layout.FOLDER}/{layout.NAME}",
    f"shop/id-89abcdef/{MANIFEST}",
    f"shop/notes/{DATA}",
    f"shop/id-89abcdef/{DATA}/more",
]


def begin(s3: S3Server, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.ask("POST", f"/{bucket}/{key}", query={"uploads": ""})


def aborted(store: Objects, older: float = NOW) -> list[str]:
    return sorted(remove_abandoned(store, older))


def test_only_uploads_of_archives_that_are_old_are_removed(s3: S3Server, bucket: str) -> None:
    keys = [f"{PREFIX}/{each}" for each in (*OURS, *ODD)]
    others = [*(f"{PREFIX}/{each}" for each in OTHERS), OURS[0], f"{PREFIX}-too/{OURS[0]}"]
    begin(s3, bucket, *keys, *others)
    store = objects(s3, bucket)
    assert aborted(store, timedelta(days=1).total_seconds()) == []
    assert s3.unfinished(bucket) == sorted([*keys, *others])
    assert aborted(store) == sorted(keys)
    assert s3.unfinished(bucket) == sorted(others)
    assert aborted(store) == []
    store.put("whole/data.dump", [b"whole"])
    assert b"".join(store.get("whole/data.dump")) == b"whole"


def test_a_list_of_several_pages_is_read_to_its_end(s3: S3Server, bucket: str) -> None:
    def shorten(request: Request) -> Answer | None:
        if not re.search(r"[?&]uploads=", request.target):
            return None
        # What is signed cannot be changed: the lab asks in its stead.
        answer = s3.as_user(s3.root).ask("GET", f"/{bucket}", query={**request.query, "max-uploads": "1"})
        pages.append(request.target)
        return Answer(answer.status, answer.content)

    pages: list[str] = []
    begin(s3, bucket, *(f"{PREFIX}/{each}" for each in OURS))
    with Front(s3.host, s3.port) as front:
        front.rules.append(shorten)
        assert len(aborted(objects(s3, bucket, front.endpoint))) == len(OURS)
    assert len(pages) == len(OURS)
    assert s3.unfinished(bucket) == []


def test_over_tls_with_the_ca_of_the_secret(bucket: str) -> None:
    with S3Server.start(Reporter(), tls=True) as server:
        server.make_bucket(bucket)
        begin(server, bucket, f"{PREFIX}/{OURS[0]}")
        assert aborted(objects(server, bucket)) == [f"{PREFIX}/{OURS[0]}"]


@pytest.mark.parametrize("code", [403, 501, 503, 307])
def test_a_service_that_does_not_list_them_is_reported(s3: S3Server, bucket: str, code: int) -> None:
    asked = []

    def refuse(request: Request) -> Answer:
        asked.append(request.target)
        return Answer(code, b"<Error/>", {"Location": "http://127.0.0.1:1/"})

    with Front(s3.host, s3.port) as front:
        front.rules.append(refuse)
        with pytest.raises(DestinationUnreachable if code == 503 else DestinationDenied, match=f"uploads: {code} "):
            aborted(objects(s3, bucket, front.endpoint))
    assert len(asked) == 1


def listing(more: str = "") -> bytes:
    upload = f"<Key>{PREFIX}/{OURS[0]}</Key><UploadId>1</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated>"
    return f"<ListMultipartUploadsResult><Upload>{upload}</Upload>{more}</ListMultipartUploadsResult>".encode()


AGAIN = f"<IsTruncated>true</IsTruncated><NextKeyMarker>{PREFIX}</NextKeyMarker>"
HOSTILE = {
    "pages without end": listing(AGAIN),
    "no markup": b"\xff\x00",
    "another prefix": listing().replace(PREFIX.encode(), b"elsewhere"),
    "no upload": listing().replace(b"<UploadId>1</UploadId>", b""),
    "no moment": listing().replace(b"2026-01-01", b"9999-99-99"),
    "far moment": listing().replace(b"2026-01-01T00:00:00Z", b"9999-12-31T23:59:59-23:59"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_service_says_is_bounded_and_believed_only_of_archives(s3: S3Server, bucket: str, name: str) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Answer:
        asked.append(request)
        return Answer(200, HOSTILE[name]) if request.method == "GET" else Answer(204)

    with Front(s3.host, s3.port) as front:
        front.rules.append(answer)
        found = aborted(objects(s3, bucket, front.endpoint))
    assert {*found} == ({f"{PREFIX}/{OURS[0]}"} if name == "pages without end" else set())
    assert len(asked) <= 4


def test_a_page_without_end_is_not_read(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partwarden.archive.uploads.LARGEST", 1000)
    with Front(s3.host, s3.port) as front:
        front.rules.append(lambda request: Answer(200, b"x" * 1001))
        with pytest.raises(DestinationDenied, match="about uploads has more than"):
            aborted(objects(s3, bucket, front.endpoint))


def test_a_job_that_may_not_list_them_has_done_its_work_and_says_so(
    s3: S3Server, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(s3, bucket, f"{PREFIX}/{OURS[0]}")
    job._tidy(objects(s3, bucket))
    assert capsys.readouterr().err == ""
    with Front(s3.host, s3.port) as front:
        front.rules.append(lambda request: Answer(403, b"<Error><Message>Access Denied</Message></Error>"))
        job._tidy(objects(s3, bucket, front.endpoint))
    assert re.search("cannot delete what was never finished: .*: 403 Access Denied\n$", capsys.readouterr().err)
    assert s3.unfinished(bucket) == [f"{PREFIX}/{OURS[0]}"]


def test_an_answer_without_end_is_given_up(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partwarden.archive.uploads.PATIENCE", -1.0)
    with pytest.raises(DestinationUnreachable, match="no whole answer within"):
        aborted(objects(s3, bucket))


def test_without_a_secret_nothing_is_asked() -> None:
    """A pod's own identity is known to the library alone."""
    assert aborted(storage.by_destination(Destination(s3=S3(url="s3://archives")), {})) == []
