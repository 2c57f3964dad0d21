"""What the other tests take for granted of the S3 server that they run on."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from lab.cluster import Reporter
from lab.s3 import Keys, S3Server


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
    assert [path.name for path in (s3.folder / bucket).iterdir() if path.is_file()] == ["key"]
    assert (s3.folder / bucket / "key").read_bytes() == b"content"


def test_nothing_is_left_of_one_with_tls_but_the_objects_in_a_folder_of_the_callers(tmp_path: Path) -> None:
    with S3Server.start(Reporter(), tls=True, folder=tmp_path) as own:
        assert own.endpoint.startswith("https://")
        own.make_bucket("archives")
        own.ask("PUT", "/archives/key", b"content")
        pid = own.pid
        assert pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert not own.home.exists()
    assert (tmp_path / "archives" / "key").read_bytes() == b"content"
