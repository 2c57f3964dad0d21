"""What an archive's order says of Parquet, and what its file says of itself."""

from __future__ import annotations

from collections.abc import Iterable

from ... import __version__
from ...api.archive import Fingerprint
from ...api.retention import Format
from ..job_order import TableToArchive
from ..manifest import Column, ParquetData, Say
from ..snapshot import Held
from ..storage import Store
from ..table_lookup import Target
from . import availability, layout


def check(wanted: TableToArchive) -> None:
    """Whether what is asked for can be written here. Raises `ParquetUnavailable`."""
    if Format.PARQUET in wanted.formats:
        availability.require()


def write(
    wanted: TableToArchive,
    held: Held,
    store: Store,
    place: str,
    origin: Target,
    columns: Iterable[Column],
    taken: Fingerprint,
    say: Say,
) -> ParquetData | None:
    """Write the object where it is asked for. ``place``: the key of the archive's folder. Raises as `write.write`."""
    if Format.PARQUET not in wanted.formats:
        return None
    # Not before: what it imports takes more memory than all else.
    from .write import write as write_object

    table, parent = held.table, origin.parent or wanted.parent
    facts = {
        "archive": wanted.id,
        "database": held.connection.info.dbname,
        "schema": table.schema_,
        "table": table.name,
        "parent": str(parent) if parent else None,
        "key": origin.key,
        "bounds": origin.bounds,
        "rows": taken.rows,
        "fingerprint": taken.model_dump(mode="json", by_alias=True),
        "snapshot": held.snapshot,
        "serverVersion": held.server_version,
        "partwardenVersion": __version__,
    }
    path = layout.path((parent or table).name, origin.held, {column.name for column in columns})
    say(f"writing {table} as Parquet to {store.url(f'{place}/{path}')}")
    return write_object(held, store, place, path, facts, taken.rows, say)
