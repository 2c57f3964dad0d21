"""The commands for archives: what a Job's pod runs, and the same by hand."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from ..api.retention import OnLargeObjects
from ..archive import create, storage
from ..archive.jobspec import DATABASE_KEYS, DATABASE_PREFIX, VARIABLE, WRONG, JobSpec, Report, TableToArchive, Task
from ..archive.manifest import TableName
from ..archive.verify import open_archive
from ..errors import InvalidSpec, PartwardenError, UserError
from ..planner.calendar import iso
from ..postgres.connection import forget_environment
from ..postgres.conninfo import ConnectionInfo, from_dsn, merge
from . import formats, options
from .formats import printable
from .options import Where

# The archive that a command is about: an address, or a PartitionArchive in a cluster, which says what was proven.
#

OBJECT = "parc/"
"""Begins ``parc/NAME`` and ``parc/NAMESPACE/NAME``, as kubectl calls a PartitionArchive."""


def resolve_address(url: str, manifest_sha256: str | None) -> tuple[str, str | None]:
    """The address of the archive's folder, and what the sha256 of its manifest must be, None where nothing says it.

    A PartitionArchive says both; it is read by the kubeconfig, from the namespace of its context where none is named.
    Raises `InvalidSpec` where there is none, or it is not proven, or says another sha256 than is demanded, and
    `ClusterUnavailable`.
    """
    if not url.startswith(OBJECT):
        return url, manifest_sha256
    namespace, _, name = url.removeprefix(OBJECT).rpartition("/")
    status = _status(namespace or None, name)
    location, proven = status.get("location"), status.get("manifestSha256")
    if not location or not proven:
        raise InvalidSpec(f"PartitionArchive {name} is not proven: kubectl describe parc {name} says what it waits for")
    if manifest_sha256 is not None and manifest_sha256 != proven:
        raise InvalidSpec(f"--manifest-sha256 is {manifest_sha256}, but PartitionArchive {name} says {proven}")
    return str(location), str(proven)


def _status(namespace: str | None, name: str) -> dict[str, Any]:
    # Here, for an address needs no Kubernetes client, which takes long to load.
    from . import cluster_policies

    policies = cluster_policies.Policies(Where(namespace=namespace))
    found = policies.archive(name)
    if found is None:
        raise InvalidSpec(f"there is no PartitionArchive {name!r} in namespace {policies.namespace!r}")
    status: dict[str, Any] = found.get("status") or {}
    return status


FAILED = 1
TERMINATED = 143
LARGEST = 4096
"""Bytes of a report: what Kubernetes keeps of a termination message."""


REPORT = click.option("--report", type=click.Path(path_type=Path), help="File for the result, as JSON.")


@click.command()
@click.option(
    "--dsn", required=True, help="Connection string or URI; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it."
)
@click.option("--table", callback=options.table, metavar="[SCHEMA.]NAME", help="The partitioned table.")
@click.option("--partition", required=True, callback=options.table, metavar="[SCHEMA.]NAME", help="Its partition.")
@click.option("--to", required=True, metavar="URL", help="A folder that exists, or s3://bucket/prefix, gs://…, az://….")
@click.option(
    "--without-large-objects", is_flag=True, help="Archive it although its rows point to large objects: left out."
)
@REPORT
@formats.option()
def archive(
    dsn: str,
    table: dict[str, str] | None,
    partition: dict[str, str],
    to: str,
    without_large_objects: bool,
    report: Path | None,
    output: str,
) -> int:
    """Archive a partition, read the archive back and prove it. The database is only read.

    Exits 0 when it is proven, 1 on an error.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        store = storage.to(to)
        wanted = _table_to_archive(table, partition, without_large_objects)
        made = create.archive(wanted, from_dsn(dsn), store, _say)
    except PartwardenError as error:
        _write(report, create.failure(error))
        raise formats.failure(error) from None
    _write(report, made)
    if formats.is_data(output):
        formats.data(made.model_dump(mode="json", by_alias=True, exclude_none=True), output)
    else:
        more = f"  {made.rows:,} rows, {made.bytes:,} bytes, sha256 {made.sha256}" if output == "wide" else ""
        click.echo(printable(made.location + more))
    return 0


@click.command(hidden=True)
@REPORT
def job(report: Path | None) -> int:
    """Do what PARTWARDEN_ORDER in the environment says: what the pod of a Job runs.

    Exits 0 when it is proven, 1 on an error that may pass, 3 on one that would not.
    """
    signal.signal(signal.SIGTERM, _terminate)
    spec: JobSpec | None = None
    try:
        spec = _read_spec(os.environ)
        info, store = _database(spec, os.environ), storage.of_job(spec, os.environ)
        forget_environment()
        checks = spec.task is Task.CHECK
        made = create.check(spec, info, store) if checks else create.archive(spec, info, store, _say)
    except PartwardenError as error:
        _say(f"{error.reason}: {error}")
        _write(report, create.failure(error, spec.id, spec.partition.oid) if spec else create.failure(error))
        return WRONG if isinstance(error, UserError) else FAILED
    _write(report, made)
    _say(f"proven: {made.rows:,} rows, {made.bytes:,} bytes at {made.location}")
    return 0


@click.command(short_help="Prove an archive again, without a database.")
@click.argument("url")
@options.manifest_sha256
@formats.option()
def verify(url: str, manifest_sha256: str | None, output: str) -> int:
    """Prove an archive again, without a database: its size, its sha256, and the rows that it restores.

    URL is its folder or its manifest.json, or parc/[NAMESPACE/]NAME of a PartitionArchive. Exits 0 when it is as it was
    written, 1 when not.
    """
    try:
        found = open_archive(*resolve_address(url, manifest_sha256)).telling(formats.progress)
        found.prove()
    except PartwardenError as error:
        raise formats.failure(error) from None
    finally:
        formats.progressed()
    manifest = found.manifest
    if formats.is_data(output):
        formats.data({"url": found.url, **manifest.model_dump(mode="json", by_alias=True)}, output)
    elif output == "name":
        formats.names([found.url])
    else:
        more = f", sha256 {manifest.sha256}, {found.url}" if output == "wide" else ""
        line = f"{manifest.partition}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, as they were proven{more}"
        click.echo(printable(line))
    return 0


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """As the first process of a container it would not hear of SIGTERM else; this way what is half done is removed."""
    sys.exit(TERMINATED)


def _table_to_archive(
    table: Mapping[str, str] | None, partition: Mapping[str, str], without_large_objects: bool
) -> TableToArchive:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    schema = (table or {}).get("schema", "public")
    return TableToArchive(
        id=f"{moment}-{secrets.token_hex(3)}",
        parent=TableName(schema_=schema, name=table["name"], oid=0) if table else None,
        partition=TableName(schema_=partition.get("schema", schema), name=partition["name"], oid=0),
        large_objects=OnLargeObjects.LEAVE_OUT if without_large_objects else OnLargeObjects.REFUSE,
    )


def _read_spec(environment: Mapping[str, str]) -> JobSpec:
    text = environment.get(VARIABLE)
    if text is None:
        raise InvalidSpec(f"{VARIABLE} is not set: this command is for Jobs; archive by hand with `partwarden archive`")
    try:
        return JobSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{VARIABLE} is not valid: {field or 'it'}: {first['msg']}") from None


def _database(spec: JobSpec, environment: MutableMapping[str, str]) -> ConnectionInfo:
    """Takes the Secret's values out of the environment: programs that are started have no need to see them."""
    names = {key: DATABASE_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", key) for key in DATABASE_KEYS}
    secret = {key: environment.pop(name) for key, name in names.items() if name in environment}
    return merge(spec.connection, secret, "spec.database.secretRef")


def _write(path: Path | None, report: Report) -> None:
    if path is None:
        return
    text = report.model_dump_json(by_alias=True, exclude_none=True)
    while len(text.encode()) > LARGEST:
        report = report.model_copy(update={"message": report.message[: len(report.message) // 2]})
        text = report.model_dump_json(by_alias=True, exclude_none=True)
    try:
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"--report: {path} cannot be written: {error.strerror}") from None


def _say(line: str) -> None:
    click.echo(f"{iso(datetime.now(UTC).replace(microsecond=0))} {printable(line)}", err=True)
