"""A store of archives whose objects a test may read and damage, and what happens while it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import obstore
from obstore.store import ObjectStore

from partwarden.archive.storage import Store


class Shelf:
    """A `storage.Store`. At ``moment``, such as "before data.dump", "during", "after" or "reading", ``what`` happens,
    once. ``raw`` is another way to its objects, which lie below ``prefix`` there."""

    def __init__(self, store: Store, raw: ObjectStore, prefix: str = "") -> None:
        self.store, self.raw, self.prefix = store, raw, f"{prefix}/" if prefix else ""
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

    def remove(self, key: str) -> bool:
        self._happen("removing", key)
        versions = self.store.remove(key)
        self._happen("removed", key)
        return versions

    def url(self, key: str) -> str:
        return self.store.url(key)

    def files(self, name: str = "") -> list[str]:
        """The keys of all that lies there, or of the objects of that name; sorted."""
        pages = obstore.list(self.raw, prefix=self.prefix.rstrip("/") or None)
        keys = (each["path"].removeprefix(self.prefix) for page in pages for each in page)
        return sorted(key for key in keys if key.rpartition("/")[2].startswith(name))

    def read(self, key: str) -> bytes | None:
        """None where there is none."""
        try:
            return bytes(obstore.get(self.raw, self.prefix + key).bytes())
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Over whatever is there."""
        obstore.put(self.raw, self.prefix + key, content, use_multipart=False)

    def lose(self, key: str) -> None:
        """As if it had never been there."""
        obstore.delete(self.raw, self.prefix + key)

    def _happen(self, when: str, key: str) -> None:
        if f"{when} {key.rpartition('/')[2]}" == self.moment:
            self.moment = ""
            self.what()
