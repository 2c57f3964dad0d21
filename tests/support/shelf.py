"""A store of archives whose objects are files that a test may read and damage, and what happens while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lab.s3 import S3Server
from partwarden.api.destination import S3, Destination
from partwarden.archive.objectstore import Objects
from partwarden.archive.storage import Folder, Store, by_destination

PREFIX = "prod/db"
IN_PROGRESS = ".sgwtmp"
"""The S3 server's folder of unfinished multipart uploads."""


class Shelf:
    """A `storing.Store`. At ``moment``, such as "before data.dump", "during", "after" or "reading", ``what`` happens,
    once."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        self.moment = ""
        self.what: Callable[[], object] = lambda: None

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        self._happen("before", key)
        self.store.put(key, self._between(key, chunks), expected)
        self._happen("after", key)

    def _between(self, key: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._happen("during", key)
            yield chunk

    def get(self, key: str) -> Iterator[bytes]:
        self._happen("reading", key)
        return self.store.get(key)

    def below(self, key: str, name: str) -> Iterator[str]:
        return self.store.below(key, name)

    def remove(self, key: str) -> None:
        self._happen("removing", key)
        self.store.remove(key)
        self._happen("removed", key)

    def url(self, key: str) -> str:
        return self.store.url(key)

    def files(self) -> list[str]:
        """Below its root, sorted."""
        files = (each for each in self.root.rglob("*") if each.is_file() and IN_PROGRESS not in each.parts)
        return sorted(str(each.relative_to(self.root)) for each in files)

    def _happen(self, when: str, key: str) -> None:
        if f"{when} {key.rpartition('/')[2]}" == self.moment:
            self.moment = ""
            self.what()


def on_folder(folder: Path) -> Shelf:
    """One that is there."""
    return Shelf(Folder(folder), folder)


def destination(s3: S3Server, bucket: str, endpoint: str = "") -> Destination:
    """Of a policy, with credentials from a Secret called storage."""
    place = {"url": f"s3://{bucket}/{PREFIX}", "endpoint": endpoint or s3.endpoint, "secretRef": {"name": "storage"}}
    return Destination(s3=S3.model_validate(place))


def secret(s3: S3Server) -> dict[str, str]:
    """The data of such a Secret as users write it: with newlines at the ends."""
    authority = {"ca.crt": s3.ca.read_text()} if s3.ca else {}
    return {"accessKeyId": f"{s3.access_key}\n", "secretAccessKey": f"{s3.secret_key}\n", **authority}


def objects(s3: S3Server, bucket: str, endpoint: str = "") -> Objects:
    """The store of that destination."""
    return by_destination(destination(s3, bucket, endpoint), secret(s3))


def on_s3(s3: S3Server, bucket: str) -> Shelf:
    """A bucket that is there."""
    return Shelf(objects(s3, bucket), s3.folder / bucket / PREFIX)
