"""What the Job of a PartitionRestore does: restore one archive into one table, and report which."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ..api.restore import MOST_LEFT_OFF
from ..errors import PartwardenError
from ..postgres.conninfo import ConnectionInfo
from . import verify
from .job_order import Report, RestoredTable, RestoreOrder
from .manifest import Say
from .restore import RestoreRequest, restore
from .restored_once import Restored
from .storage import Store

ROOM = 2048
"""Bytes of JSON that what was left off may take of a report: all else in one has less than the other half of it."""
LONGEST = 300
"""Characters of one entry."""
ANOTHER = "make another PartitionRestore, with"
WAYS_OUT = (
    ("leave out --attach", f"{ANOTHER} as instead of attach"),
    ("choose another name with --as", f"{ANOTHER} another spec.as.name"),
    ("choose another with --as", f"{ANOTHER} another spec.as.schema"),
    ("name another with --parent", f"{ANOTHER} another spec.policy"),
    ("name it with --parent", f"{ANOTHER} spec.policy"),
)
"""What the command has its user do, and the same for the author of a PartitionRestore, whose spec stays as it is."""


def run(order: RestoreOrder, info: ConnectionInfo, store: Store, say: Say) -> Report:
    """Restore the archive; the report is always ``ok``. Raises as `restore.restore`, and `ArchiveDamaged` where it is
    not what the order says was proven."""
    place = verify.place_of(store, order.location)
    archived = verify.read(store, place, order.manifest_sha256 or None).telling(say)
    manifest = archived.manifest
    say(f"restoring {manifest.partition}, {manifest.rows:,} rows, from {archived.url}")
    wish = RestoreRequest(order.schema_, order.name, order.attach, order.parent, uid=order.uid)
    try:
        made = restore(archived, info, wish, say)
    except PartwardenError as error:
        raise type(error)(in_a_cluster(str(error))) from None
    return Report(
        ok=True,
        rows=made.rows,
        oid=made.oid,
        server=made.server,
        manifest_sha256=archived.manifest_sha256,
        completed=datetime.now(UTC),
        restored=_table(made),
    )


def in_a_cluster(text: str) -> str:
    """The message of a restore, with fields where it names options of the command."""
    for option, field in WAYS_OUT:
        text = text.replace(option, field)
    return text


def _table(made: Restored) -> RestoredTable:
    texts, room = [], ROOM
    for each in made.left_off[:MOST_LEFT_OFF]:
        text = str(each)[:LONGEST]
        room -= len(json.dumps(text, ensure_ascii=False).encode()) + 1
        if room < 0:
            break
        texts.append(text)
    return RestoredTable(
        schema_=made.schema,
        name=made.name,
        attached_to=made.attached or "",
        left_off=tuple(texts),
        left_off_count=made.left_off_count,
    )
