"""``partwarden job``: what the pod of a Job runs."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from pydantic import ValidationError

from ..archive import create, restore_job, restored_drop, storage
from ..archive.expiry import expire, remove_abandoned
from ..archive.job_order import (
    DATABASE_KEYS,
    DATABASE_PREFIX,
    VARIABLE,
    WRONG,
    DropOrder,
    JobOrder,
    JobSpec,
    Report,
    RestoreOrder,
    Task,
)
from ..archive.storage import Store
from ..errors import InvalidSpec, PartwardenError, UserError
from ..planner.calendar import iso
from ..postgres.connection import forget_environment
from ..postgres.conninfo import ConnectionInfo, merge
from . import formats

FAILED = 1
TERMINATED = 143
LARGEST = 4096
"""Bytes of a report: what Kubernetes keeps of a termination message."""
Order = JobSpec | RestoreOrder | DropOrder
ORDERS: dict[Task, type[Order]] = {Task.RESTORE: RestoreOrder, Task.DROP: DropOrder}
"""The order of any other task is a `JobSpec`."""
REPORT = click.option("--report", type=click.Path(path_type=Path), help="File for the result, as JSON.")


@click.command(hidden=True)
@REPORT
def job(report: Path | None) -> int:
    """Do what PARTWARDEN_ORDER in the environment says: what the pod of a Job runs.

    Exits 0 when it is done and proven, 1 on an error that may pass, 3 on one that would not.
    """
    signal.signal(signal.SIGTERM, end_at_signal)
    spec: Order | None = None
    try:
        spec = _read_order(os.environ.get(VARIABLE))
        # Out of the environment: programs that are started have no need to see them.
        names = {key: DATABASE_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", key) for key in DATABASE_KEYS}
        secret = {key: os.environ.pop(name) for key, name in names.items() if name in os.environ}
        database = partial(merge, spec.connection, secret, "spec.database.secretRef")
        store = storage.of_job(spec, os.environ)
        forget_environment()
        made = _work(spec, database, store)
    except PartwardenError as error:
        log_line(f"{error.reason}: {error}")
        about = (spec.id, spec.partition.oid) if isinstance(spec, JobSpec) else ()
        write_report(report, create.failure(error, *about))
        return WRONG if isinstance(error, UserError) else FAILED
    write_report(report, made)
    if (table := made.restored) is not None:
        log_line(f"restored {table.schema_}.{table.name}: {made.rows:,} rows")
    elif spec.task not in (Task.EXPIRE, Task.DROP):
        log_line(f"proven: {made.rows:,} rows, {made.bytes:,} bytes at {made.location}")
    _tidy(store)
    return 0


def _work(spec: Order, database: Callable[[], ConnectionInfo], store: Store) -> Report:
    """``database``: how to reach it, as `merge`; not asked by what needs none, whose Job has no Secret of it. Raises a
    `PartwardenError`."""
    if isinstance(spec, RestoreOrder):
        return restore_job.run(spec, database(), store, log_line)
    if isinstance(spec, DropOrder):
        return restored_drop.drop(spec, database(), store, log_line)
    match spec.task:
        case Task.ARCHIVE:
            return create.archive(spec, database(), store, log_line)
        case Task.CHECK:
            return create.check(spec, database(), store)
        case Task.VERIFY:
            return create.check(spec, None, store)
        case Task.EXPIRE:
            return expire(spec, store, log_line)
        case Task.RESTORE | Task.DROP:
            raise InvalidSpec(f"{VARIABLE} is not valid: task: {spec.task} makes no archive, and reads none")


def _tidy(store: Store) -> None:
    """Remove what writers left that were killed long ago. The Job has done its work, whatever comes of this."""
    try:
        for key in remove_abandoned(store):
            log_line(f"{key}, which was never finished, is deleted")
    except (OSError, PartwardenError) as error:
        log_line(f"cannot delete what was never finished: {error}")


def end_at_signal(_signal: int, _frame: FrameType | None) -> NoReturn:
    """As the first process of a container it would not hear of SIGTERM else; this way what is half done is removed."""
    sys.exit(TERMINATED)


def _read_order(text: str | None) -> Order:
    if text is None:
        raise InvalidSpec(f"{VARIABLE} is not set: this command is for Jobs; archive by hand with `partwarden archive`")
    try:
        return ORDERS.get(JobOrder.model_validate_json(text).task, JobSpec).model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{VARIABLE} is not valid: {field or 'it'}: {first['msg']}") from None


def write_report(path: Path | None, report: Report) -> None:
    """Write it to the file; None: nowhere. Raises click's errors where that cannot be."""
    if path is None:
        return
    while len((text := report.model_dump_json(by_alias=True, exclude_none=True)).encode()) > LARGEST:
        if not report.message:
            raise click.ClickException(f"--report: names in the result are too long for its {LARGEST} bytes")
        report = report.model_copy(update={"message": report.message[: len(report.message) // 2]})
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"--report: {path} cannot be written: {error.strerror}") from None


def log_line(line: str) -> None:
    """Print a line to stderr, with the time."""
    click.echo(f"{iso(datetime.now(UTC).replace(microsecond=0))} {formats.printable(line)}", err=True)
