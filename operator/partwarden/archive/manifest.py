"""The document of an archive: ``manifest.json``.

The manifest holds all that is needed to restore the data in ten years, without Kubernetes, the policy or the database
that it came from. It is written last: where there is none, there is no archive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from ..api.archive import Fingerprint, Written
from ..api.retention import Compression

Say = Callable[[str], None]
"""Takes a line about how far something is."""

# PostgreSQL deparses expressions into manifests. Text of a manifest that was changed since must not end the parentheses
# that it is put into, nor hide what follows. So it is read token by token, and refused where it is anything but tokens
# of an expression: no comment, no semicolon, no dollar quoting, no backslash outside E'…', parentheses balanced.
# https://www.postgresql.org/docs/current/sql-syntax-lexical.html
LONGEST = 1 << 16
"""Characters of an expression that is taken."""

TOKEN = re.compile(
    r"""[ \n\t]+
      | [eE]'(?:[^'\\\0]|''|\\[^\0])*'
      | [bBxXnN]?'(?:[^'\0]|'')*'
      | "(?:[^"\0]|"")+"
      | (?P<word>(?![eEbBxXnN]'|[uU]&['"])[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)
      | [0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? | \.[0-9]+
      | :: | [(\[] | [)\]] | [,.:]
      | [-+*/<>=~!@#%^&|`?]+""",
    re.VERBOSE,
)
QUERIES = frozenset({"select", "table", "with", "values"})
"""Words that begin a query behind a parenthesis: PostgreSQL lets none stand in the expressions of columns and CHECKs.
Elsewhere they are others: of ``timestamp with time zone``, say."""
PAIRS = {"(": ")", "[": "]"}
CLOSING = tuple(PAIRS.values())
QUOTING = "'\"eEbBxXnN"

_NAME = r'(?:"(?:[^"\0]|"")+"|[a-z_][a-z0-9_]*)'
TYPE_NAME = re.compile(rf"{_NAME}(?:[. ]{_NAME})*(?:\([A-Za-z0-9_, -]+\))?(?: {_NAME})*(?:\[\])?")
LONGEST_NAME = 512
"""Characters of a type's name: two identifiers of 63 bytes, each character doubled in quotes, and more."""


def is_type_name(text: str) -> bool:
    """Whether the text is a name of a type as `format_type` spells it, be there such a type or not."""
    return len(text) <= LONGEST_NAME and TYPE_NAME.fullmatch(text) is not None


def is_expression(text: str) -> bool:
    """Whether the text, put between parentheses, stays between them. Takes time in proportion to its length."""
    if not text.strip() or len(text) > LONGEST:
        return False
    open_, position, before = [], 0, "("
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            return False
        position, words = token.end(), token[0]
        # Inside quotes a comment's beginning is text like any other.
        if words[0] not in QUOTING and ("--" in words or "/*" in words):
            return False
        if before == "(" and token["word"] and words.lower() in QUERIES:
            return False
        before = words if words.strip() else before
        if words in PAIRS:
            open_.append(PAIRS[words])
        elif (words in CLOSING and (not open_ or open_.pop() != words)) or (words == "," and not open_):
            return False
    return not open_


MOST_COLUMNS, MOST_TYPES, MOST_LABELS = 1664, 10_000, 100_000
"""Of a manifest: a row of PostgreSQL has no more columns; types of users, and labels of one enum."""
LARGEST_FOOTER = 256 << 20
"""Bytes of the metadata of a Parquet object: it is in memory when the object is written and when it is read."""
DATA, GENERATED, MANIFEST = "data.dump", "generated.copy.gz", "manifest.json"
"""Names of the objects in an archive's folder; the second only where columns are generated and stored."""
EXPIRED = "expired.json"
"""Name of the copy of the manifest in a folder that is being deleted: see `expiry`."""


class TableName(Written):
    """A table by its names and its OID at that time."""

    schema_: str = Field(alias="schema")
    name: str
    oid: int

    def __str__(self) -> str:
        return f"{self.schema_}.{self.name}"


class Column(Written):
    """A column of the partition, in order."""

    name: str
    type: str
    """As `format_type` names it, without its modifier: to be resolved by `to_regtype`, and never used as SQL."""
    typmod: int = -1
    """``pg_attribute.atttypmod``: the length, precision and the like; -1 where there is none."""
    not_null: bool = False
    not_null_valid: bool = True
    """False where the constraint is NOT VALID, from PostgreSQL 18 on: older rows may be NULL."""
    generated: str = ""
    """``pg_attribute.attgenerated``: empty, ``s`` or ``v``."""
    expression: str = ""
    """What a generated column is computed by, every name in it qualified."""
    collation: str = ""
    """Where it is not that of the type, as `regcollation` says it."""


def stored_names(columns: Iterable[Column]) -> tuple[str, ...]:
    """The columns whose values are generated and stored, which COPY of the table leaves out."""
    return tuple(column.name for column in columns if column.generated == "s")


class Attribute(Written):
    """An attribute of a composite type, or what a domain or range is made from; ``name`` is empty for the latter."""

    name: str = ""
    type: str
    typmod: int = -1
    collation: tuple[str, str] | None = None
    """Schema and name, where it is not that of the type."""


class DomainCheck(Written):
    """A CHECK of a domain."""

    name: str
    expression: str
    valid: bool = True


class TypeKind(StrEnum):
    """What a type of the user is, and so how it is made."""

    ENUM = "Enum"
    DOMAIN = "Domain"
    COMPOSITE = "Composite"
    RANGE = "Range"
    EXTENSION = "Extension"
    OTHER = "Other"
    """Written in C, or with a function of its own: it cannot be made from a manifest."""


class UserType(Written):
    """A type that is not PostgreSQL's own, and that a column is of or made from. Data, never SQL."""

    name: str
    """As `format_type` says it: qualified, and quoted where need be."""
    schema_: str = Field("", alias="schema")
    type_name: str = ""
    """Its name alone, without quotes."""
    kind: TypeKind = TypeKind.OTHER
    extension: str | None = None
    """The one that it belongs to, and comes with."""
    labels: tuple[str, ...] = Field((), max_length=MOST_LABELS)
    """Of an enum, in order."""
    attributes: tuple[Attribute, ...] = Field((), max_length=MOST_COLUMNS)
    """Of a composite type, in order; of a domain or range the one that it is made from."""
    not_null: bool = False
    checks: tuple[DomainCheck, ...] = Field((), max_length=MOST_COLUMNS)
    opclass: tuple[str, str] | None = None
    """Of a range: schema and name of the operator class, where it is not the default."""
    multirange: tuple[str, str] | None = None
    """Of a range: schema and name of the multirange that is made with it."""


class GeneratedData(Written):
    """`GENERATED`: the values of the stored generated columns, which ``pg_dump`` leaves out."""

    columns: tuple[str, ...] = Field(max_length=MOST_COLUMNS)
    bytes: int
    sha256: str
    """Of the object, compressed, as ``bytes``."""
    copy_sha256: str
    """Of what it holds: a line for each row, in the order of the rows of `DATA`, as COPY writes those columns."""


class ParquetColumnData(Written):
    """A column of the Parquet object. ``type``: as Arrow calls it."""

    name: str
    type: str = Field(max_length=256)
    text_reason: str = Field("", max_length=512)
    """Why it holds PostgreSQL's text, where its type has no other that is exact; else empty."""


class ParquetData(Written):
    """The Parquet object beside `DATA`: the same rows in the same order, for queries. No column that is virtual."""

    path: str = Field(max_length=1024, pattern=r"^parquet(?:/[a-z]+=[A-Za-z0-9._~%-]{1,250})*/data\.parquet$")
    """Its key below the archive's folder."""
    bytes: int = Field(ge=1)
    sha256: str
    """Of the object, as ``bytes``."""
    footer: int = Field(ge=1, le=LARGEST_FOOTER)
    """Bytes of its end, in which its metadata is."""
    copy_bytes: int = Field(ge=0)
    copy_sha256: str
    """Of the rows as COPY writes these columns, as ``copy_bytes``; of floating-point numbers it writes the bits."""
    columns: tuple[ParquetColumnData, ...] = Field(max_length=MOST_COLUMNS)


class ArchiveManifest(Written):
    """``manifest.json``. Moments are aware and in UTC."""

    format: Literal[1, 2] = 2
    """1: without values of generated columns, and without modifiers and definitions of types."""
    id: str
    """Unique among the archives of the partition; the last part of the folder's name."""
    database: str
    parent: TableName | None = None
    """None where the table was detached already, and its mark does not say of what."""
    partition: TableName
    bounds: tuple[str, str] | None = None
    """The literals of ``FOR VALUES FROM (…) TO (…)``, lower inclusive, upper exclusive, without quotes."""
    key: str | None = None
    """The partition key's column."""
    columns: tuple[Column, ...] = Field(max_length=MOST_COLUMNS)
    types: tuple[UserType, ...] = Field((), max_length=MOST_TYPES)
    """Of users, that the columns need, each after those that it is made from."""
    unlogged: bool = False
    settings: dict[str, str] = Field(default_factory=dict, max_length=MOST_COLUMNS)
    """Under which `DATA` was written, and is to be read: see `text_settings`."""
    parent_ddl: str
    """``pg_dump --schema-only`` of the parent, as plain SQL, for people; empty where there is none. Never executed."""
    rows: int
    bytes: int
    sha256: str
    """Of `DATA`, as ``bytes``."""
    copy_sha256: str
    """Of the rows as COPY … TO STDOUT writes them in the snapshot, and equally of what the archive restores."""
    generated: GeneratedData | None = None
    """None where no column is generated and stored."""
    parquet: ParquetData | None = None
    """None where it was not asked for."""
    fingerprint: Fingerprint
    snapshot: str
    server_version: str
    client_version: str
    """Of pg_dump."""
    compression: Compression = Compression.GZIP
    """Of `DATA`. Manifests that do not say it are older than the choice."""
    reader: str = Field("", max_length=256)
    """What reads `DATA`, for people."""
    partwarden_version: str
    started: datetime
    completed: datetime

    @property
    def key_type(self) -> str:
        """Of the partition key's column, as `format_type` spelled it; empty where the manifest does not know."""
        return next((column.type for column in self.columns if column.name == self.key), "")


def serialize(manifest: ArchiveManifest) -> bytes:
    """The bytes of `MANIFEST`."""
    return (manifest.model_dump_json(by_alias=True, indent=2) + "\n").encode()
