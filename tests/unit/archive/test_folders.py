"""The folder of an archive: each part of its path is one that a file system takes, whatever the names are."""

from __future__ import annotations

import pytest

from partwarden.archive.create import _folder
from partwarden.archive.manifest import TableName

NAMES = ["run", '"' * 63, "日" * 21, "..", "a/b", " " * 63, "%" * 63]


@pytest.mark.parametrize("schema", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_no_part_is_too_long_or_leads_elsewhere(schema: str, name: str) -> None:
    table = TableName(schema_=schema, name=name, oid=1)
    parts = _folder(name, table, table).split("/")
    assert len(parts) == 3
    assert all(0 < len(part.encode()) <= 255 and part.strip(".") for part in parts)


def test_names_that_differ_at_their_end_have_different_folders() -> None:
    table = TableName(schema_="s", name="p", oid=2)
    folders = {_folder("db", TableName(schema_='"' * 63, name='"' * 62 + end, oid=1), table) for end in "ab"}
    assert len(folders) == 2
