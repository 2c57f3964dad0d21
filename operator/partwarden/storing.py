"""What archives need of the place where they lie, and names of what lies there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from .record import TableName

SAFE = re.compile(r"[^A-Za-z0-9._~\-\u0080-\U0010ffff]")


class Store(Protocol):
    """A place. Keys are paths with ``/``, below its root. All raise leaves of `errors` that begin with Destination."""

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        """Write a new object, whole and durable, or none: what ``chunks`` raise leaves none. Raises `ObjectExists`.

        ``expected``: about how many bytes it will have.
        """

    def get(self, key: str) -> Iterator[bytes]:
        """Its bytes, piece by piece. Raises `ArchiveDamaged` where there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def below(self, key: str, name: str) -> Iterator[str]:
        """The keys of all objects of that name in ``key`` and below, in any order."""

    def url(self, key: str) -> str:
        """For people, and for reports."""


def folder(database: str, parent: TableName | None, partition: TableName) -> str:
    """Where the archives of a partition lie: ``<database>/<schema>.<table>/<partition>``."""
    table = parent or partition
    return "/".join((_part(database), f"{_part(table.schema_)}.{_part(table.name)}", _part(partition.name)))


def _part(name: str) -> str:
    """As one part of a path, which it stays whatever characters it holds."""
    safe = SAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    return safe if safe.strip(".") else safe.replace(".", "%2E")
