"""What other tests take for granted of the lab's S3 server."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import obstore
import psutil
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import S3Store

from lab import pod, report
from lab.cluster import Cluster, Reporter
from lab.kubectl import Kubectl
from lab.proxy import Proxy, Toward
from lab.s3 import Keys, S3Server

MEBIBYTE = 1 << 20
FETCH = """
import urllib.error, urllib.request
try:
    urllib.request.urlopen("{endpoint}/archives", timeout=20)
except urllib.error.HTTPError as refused:
    print(refused.code)
"""


def store(s3: S3Server, bucket: str, endpoint: str = "") -> S3Store:
    """As a full S3 client sees it."""
    return S3Store(
        bucket,
        endpoint=endpoint or s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        client_options={"root_certificate": s3.ca.read_bytes()} if s3.ca else {"allow_http": True},
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=10)},
    )


def test_an_object_comes_back_and_is_a_file(s3: S3Server, bucket: str) -> None:
    s3.ask("PUT", f"/{bucket}/a/b", b"content")
    assert (s3.folder / bucket / "a" / "b").read_bytes() == b"content"
    assert s3.ask("GET", f"/{bucket}/a/b").content == b"content"
    (s3.folder / bucket / "a" / "b").write_bytes(b"changed")
    assert s3.ask("GET", f"/{bucket}/a/b").content == b"changed"


@pytest.mark.parametrize(("name", "reason"), [("root", b"SignatureDoesNotMatch"), ("nobody", b"InvalidAccessKeyId")])
def test_wrong_keys_are_refused(s3: S3Server, bucket: str, name: str, reason: bytes) -> None:
    answer = s3.as_user(Keys(name, "wrong")).ask("GET", f"/{bucket}", query={"list-type": "2"})
    assert answer.status == 403
    assert reason in answer.content


def test_the_reader_may_read_and_list_and_no_more(s3: S3Server, bucket: str) -> None:
    s3.ask("PUT", f"/{bucket}/key", b"content")
    reader = s3.as_user(s3.reader)
    assert reader.ask("GET", f"/{bucket}/key").content == b"content"
    assert b"<Key>key</Key>" in reader.ask("GET", f"/{bucket}", query={"list-type": "2"}).content
    refused = [reader.ask("PUT", f"/{bucket}/{key}", b"x") for key in ("key", "other")]
    refused.append(reader.ask("DELETE", f"/{bucket}/key"))
    assert [answer.status for answer in refused] == [403, 403, 403]
    assert s3.objects(bucket) == ["key"]
    assert (s3.folder / bucket / "key").read_bytes() == b"content"


def test_an_object_in_parts_comes_back_and_no_other_takes_its_place_unasked(s3: S3Server, bucket: str) -> None:
    client, content = store(s3, bucket), bytes(range(256)) * (11 * MEBIBYTE // 256)
    obstore.put(client, "a/b", content, use_multipart=True, chunk_size=5 * MEBIBYTE)
    assert bytes(obstore.get(client, "a/b").bytes()) == content
    with pytest.raises(AlreadyExistsError):
        obstore.put(client, "a/b", b"other", mode="create")
    assert (s3.objects(bucket), s3.unfinished(bucket)) == (["a/b"], [])


def test_an_upload_that_is_cut_makes_no_object(s3: S3Server, bucket: str) -> None:
    with Proxy(s3.host, s3.port) as proxy:
        client = store(s3, bucket, s3.endpoint_over(proxy))
        struck = proxy.cut(Toward.SERVER, after=6 * MEBIBYTE)
        with pytest.raises(GenericError):
            obstore.put(client, "key", bytes(11 * MEBIBYTE), use_multipart=True, chunk_size=5 * MEBIBYTE)
        assert struck.is_set()
        assert (s3.objects(bucket), s3.unfinished(bucket)) == ([], ["key"])
        proxy.heal()
        obstore.put(client, "key", b"content")
    assert s3.objects(bucket) == ["key"]


def test_pods_reach_one_that_listens_for_them(pods: Cluster, restricted: Kubectl, operator_image: str) -> None:
    if not pods.host_address:
        report.could_not_run("an S3 server on this machine: no address is known at which pods reach it")
    with S3Server.start(Reporter(), host=pods.host_address) as own:
        own.make_bucket("archives")
        assert pod.python(restricted, operator_image, FETCH.format(endpoint=own.endpoint)).said == "403\n"


def test_nothing_is_left_of_one_with_tls_but_the_objects_in_a_folder_of_the_callers(tmp_path: Path) -> None:
    with S3Server.start(Reporter(), tls=True, folder=tmp_path) as own:
        assert own.endpoint.startswith("https://")
        own.make_bucket("archives")
        obstore.put(store(own, "archives"), "key", b"content")
        pid = own.pid
        assert pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert not own.home.exists()
    assert (tmp_path / "archives" / "key").read_bytes() == b"content"
