"""What the folders of archives are called: ``<database>/<schema>.<table>/<partition>/<id>``. Pure."""

from __future__ import annotations

import hashlib
import re

from .manifest import TableName

SAFE = re.compile(r"[^A-Za-z0-9._~\-\u0080-\U0010ffff]")
LONGEST_PART = 255
"""Bytes of one part of a path: file systems take no more."""
DIGITS = 16


def folder(database: str, parent: TableName | None, partition: TableName) -> str:
    """Where the archives of a partition lie: ``<database>/<schema>.<table>/<partition>``."""
    table = parent or partition
    return "/".join((_part(database), table_part(table.schema_, table.name), _part(partition.name)))


def table_part(schema: str, name: str) -> str:
    """What the folder of a table is called."""
    return _shortened(f"{_escaped(schema)}.{_escaped(name)}")


def table_of(location: str) -> str | None:
    """What the folder of the table is called at the URL of an archive's folder; None where that has no such part."""
    parts = location.partition("://")[2].rstrip("/").split("/")
    return parts[-3] if len(parts) > 4 else None


def _part(name: str) -> str:
    return _shortened(_escaped(name))


def _shortened(part: str) -> str:
    """The end of a part that is too long is instead the digest of the whole."""
    if len(text := part.encode()) <= LONGEST_PART:
        return part
    kept = text[: LONGEST_PART - DIGITS - 1].decode(errors="ignore")
    return f"{kept}~{hashlib.sha256(text).hexdigest()[:DIGITS]}"


def _escaped(name: str) -> str:
    """As one part of a path, which it stays whatever characters it holds."""
    safe = SAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    return safe if safe.strip(".") else safe.replace(".", "%2E")
