"""Whether an archive fits the table that it shall be attached to, asked before anything is loaded.

ATTACH asks all of this again; but then the rows have been loaded, for hours perhaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from . import catalog, describing, fingerprint, parent_definition, remaking
from .bounds import parse_bounds
from .errors import CannotAttach, InsufficientPrivilege, NotOwner, TableNotFound
from .findings import quoted
from .interval import Range
from .inventory import Inventory, Parent, Strategy
from .keys import TYPES, Codec
from .parent_definition import ParentDefinition
from .policy import TableSpec
from .record import ArchiveManifest, Column
from .resolving import Types
from .session import Session, pinned, run

CREATES = "SELECT has_schema_privilege({owner}, {schema}, 'CREATE')"
AS_OWN = "leave out --attach to load it as a table of its own"


@dataclass(frozen=True, slots=True)
class Parentage:
    """The parent as it stands: what a look reads of it, its ``columns`` in order, and what else a partition needs.

    ``bounds`` are those that the partition is to have.
    """

    inventory: Inventory
    columns: tuple[Column, ...]
    definition: ParentDefinition
    key: tuple[str, str]
    """The partition key's column, and its type as the server spells it."""
    bounds: tuple[str, str]

    @property
    def parent(self) -> Parent:
        """It exists: `check` has seen it."""
        assert self.inventory.parent is not None
        return self.inventory.parent


def check(
    connection: Session, manifest: ArchiveManifest, parent_schema: str, parent_name: str, schema: str, name: str
) -> Parentage:
    """Read the parent, which the table ``schema.name`` is to be a partition of.

    Raises `TableNotFound`, `CannotAttach`, `NotOwner`, or psycopg's errors.
    """
    if manifest.bounds is None or manifest.key is None:
        raise CannotAttach("the archive does not say which bounds its table had: leave out --attach")
    kind = remaking.key_type(manifest)
    encoding = next((each.encoding for each in _codecs(kind, manifest.bounds)), None)
    fields = {
        "table": {"schema": parent_schema, "name": parent_name},
        **({"keyEncoding": encoding} if encoding else {}),
    }
    inventory = catalog.observe(connection, TableSpec.model_validate(fields))
    parent = inventory.parent
    if parent is None:
        raise TableNotFound(
            f"table {parent_schema}.{parent_name} does not exist: name another with --parent, or leave out --attach"
        )
    key = [(each.column, each.type) for each in parent.key]
    if parent.strategy is not Strategy.RANGE or key != [(manifest.key, kind)]:
        raise CannotAttach(
            f"{parent} is not partitioned by RANGE of {manifest.key!r} of type {kind}, as it was: {AS_OWN}"
        )
    if not parent.may_own:
        raise NotOwner(f"role {inventory.server.user!r} is not an owner of {parent}: connect as {parent.owner!r}")
    _check_free(inventory, manifest)
    with connection.transaction():
        run(connection, pinned("2s", "30s"), fingerprint.pin_text())
        ((creates,),) = run(connection, sql.SQL(CREATES).format(owner=parent.owner, schema=schema))[0]
        if parent.borrowed and not creates:
            grant = f"GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(parent.owner)}"
            raise InsufficientPrivilege(
                f"{schema}.{name} is not attached to {parent}: all is done as {parent.owner!r}, its owner, who may not "
                f"create tables in schema {schema!r}: {grant}, or leave out --attach"
            )
        columns = describing.describe(connection, parent.oid).columns
        definition = parent_definition.read(connection, parent.oid, schema, name)
        _check_columns(parent, columns, manifest.columns, Types(connection, manifest.types))
    inventory = catalog.complete(connection, inventory, [])
    return Parentage(inventory, columns, definition, (manifest.key, kind), manifest.bounds)


def _codecs(kind: str, bounds: tuple[str, str]) -> Iterator[Codec]:
    """Those by which the bounds are moments of our calendar, at one end at least. Seconds come before milliseconds."""
    for encoding in TYPES:
        if (codec := Codec.find(kind, encoding)) is not None and (held := _held(codec, bounds)) is not None:
            ends = (end for end in (held.lower, held.upper) if end is not None)
            if any(codec.floor < end < codec.ceiling for end in ends):
                yield codec


def _held(codec: Codec, bounds: tuple[str, str]) -> Range | None:
    try:
        return parse_bounds("FOR VALUES FROM ({}) TO ({})".format(*bounds), codec)
    except ValueError:
        return None


def range_of(manifest: ArchiveManifest) -> Range | None:
    """The bounds as moments in the key's domain; None where the key does not say when."""
    assert manifest.bounds is not None
    codec = next(_codecs(remaking.key_type(manifest), manifest.bounds), None)
    return _held(codec, manifest.bounds) if codec is not None else None


def _check_free(inventory: Inventory, manifest: ArchiveManifest) -> None:
    held = range_of(manifest)
    for each in inventory.partitions:
        if held is not None and each.range is not None and each.range.overlaps(held):
            raise CannotAttach(
                f"partition {each} {each.bounds} of {inventory.parent} holds what the archive held: leave out --attach "
                "to load it as a table of its own"
            )


def _check_columns(parent: Parent, present: Iterable[Column], archived: Iterable[Column], types: Types) -> None:
    """What the parent has and the archive has not gets its default; what it has no more would be lost."""
    by_name = {each.name: each for each in present}
    for each in archived:
        there = by_name.get(each.name)
        if there is None or not _takes(there, each, types):
            found = "has no such column" if there is None else f"has it as {_words(there)}"
            raise CannotAttach(
                f"column {each.name!r} of the archive is {_words(each)}, but {parent} {found}: leave out --attach to "
                "load a table of its own"
            )


def _takes(there: Column, archived: Column, types: Types) -> bool:
    """Whether the parent's column is of the type, wherever that is now, and computed where the archived one was.

    Values that were computed and stored may become values like any other.
    """
    # Of the type alone: whether its values fit another length or precision is found out by loading them.
    bare = archived.model_copy(update={"typmod": -1})
    found = types.find(bare)
    same = there.type == archived.type or (found is not None and found.as_string() == there.type)
    return same and (there.generated == archived.generated or (archived.generated == "s" and not there.generated))


def _words(column: Column) -> str:
    return f"{column.type}, generated" if column.generated else column.type
