"""``partwarden archive``, ``verify`` and ``restore``."""

from __future__ import annotations

import secrets
import shlex
import signal
from datetime import UTC, datetime
from pathlib import Path

import click

from ..api.retention import HIGHEST_LEVEL, Compression, Format, OnLargeObjects, is_level
from ..archive import create, storage
from ..archive.job_order import (
    TableToArchive,
)
from ..archive.manifest import ArchiveManifest, TableName
from ..archive.parquet import availability
from ..archive.restore import RestoreRequest
from ..archive.restore import restore as restore_archive
from ..archive.restored_once import Restored
from ..archive.table_lookup import moments
from ..archive.verify import find, open_archive
from ..errors import InvalidSpec, PartwardenError
from ..planner.calendar import iso
from ..postgres.conninfo import from_dsn
from ..postgres.settings import as_options
from . import formats, options, partition_restore
from .job import REPORT, end_at_signal, log_line, write_report
from .options import Target
from .policies import Policies, status

OBJECT = "parc/"
"""Begins ``parc/NAME`` and ``parc/NAMESPACE/NAME``, as kubectl calls a PartitionArchive."""

Named = dict[str, str] | None


def _formats(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[Format, ...]:
    """Repeated, or separated by commas, in upper or lower case; the dump always."""
    known = {each.value.lower(): each for each in Format}
    named = [word.strip() for value in values for word in value.split(",")]
    if unknown := [word for word in named if word.lower() not in known]:
        raise click.BadParameter(f"must be {' or '.join(Format)}, found {unknown[0]!r}")
    wanted = {Format.DUMP, *(known[word.lower()] for word in named)}
    return tuple(each for each in Format if each in wanted)


@click.command()
@options.dsn
@click.option("--table", callback=options.table, metavar=options.TABLE, help="The partitioned table.")
@click.option("--partition", required=True, callback=options.table, metavar=options.TABLE, help="Its partition.")
@click.option("--to", required=True, metavar="URL", help="A folder that exists, or s3://bucket/prefix, gs://…, az://….")
@click.option(
    "--without-large-objects", is_flag=True, help="Archive it although its rows point to large objects: left out."
)
@click.option(
    "--compression",
    type=click.Choice([each.value for each in Compression], case_sensitive=False),
    default=Compression.ZSTD.value,
    help="Of the dump. Zstd, where pg_dump cannot do it, is Gzip. Default: Zstd.",
)
@click.option(
    "--compression-level",
    type=click.IntRange(1, HIGHEST_LEVEL[Compression.ZSTD]),
    help="From 1, the fastest, to 19 of Zstd or 9 of Gzip. Default: 1 of Zstd, 6 of Gzip.",
)
@click.option(
    "--format",
    "wanted_formats",
    multiple=True,
    callback=_formats,
    metavar="FORMAT",
    help="Parquet: write data.parquet for queries, too, by pyarrow; Dump is always written. Repeat it, or use commas.",
)
@REPORT
@formats.option()
def archive(
    dsn: str,
    table: Named,
    partition: dict[str, str],
    to: str,
    without_large_objects: bool,
    compression: str,
    compression_level: int | None,
    wanted_formats: tuple[Format, ...],
    report: Path | None,
    output: str,
) -> int:
    """Archive a partition, read the archive back and prove it. The database is only read.

    Exits 0 when it is proven, 1 on an error.
    """
    signal.signal(signal.SIGTERM, end_at_signal)
    schema, by = (table or {}).get("schema", "public"), Compression(compression)
    if not is_level(by, compression_level):
        raise click.BadParameter("Zstd has 1 to 19, Gzip 1 to 9, None has none", param_hint="--compression-level")
    try:
        store = storage.to(to)
        wanted = TableToArchive(
            id=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
            parent=TableName(schema_=schema, name=table["name"], oid=0) if table else None,
            partition=TableName(schema_=partition.get("schema", schema), name=partition["name"], oid=0),
            large_objects=OnLargeObjects.LEAVE_OUT if without_large_objects else OnLargeObjects.REFUSE,
            compression=by,
            compression_level=compression_level,
            formats=wanted_formats,
        )
        made = create.archive(wanted, from_dsn(dsn), store, log_line)
    except PartwardenError as error:
        write_report(report, create.failure(error))
        raise
    write_report(report, made)
    more = f"  {made.rows:,} rows, {made.bytes:,} bytes, sha256 {made.sha256}" if output == "wide" else ""
    if formats.is_data(output):
        formats.data(made.model_dump(mode="json", by_alias=True, exclude_none=True), output)
    else:
        # As it is: for a shell, not for people.
        click.echo(made.location + more)
    return 0


@click.command(short_help="Prove an archive again, without a database.")
@click.argument("url")
@options.manifest_sha256
@formats.option()
def verify(url: str, manifest_sha256: str | None, output: str) -> int:
    """Prove an archive again, without a database: its size, its sha256, and the rows that it restores; of Parquet
    beside it the same, where pyarrow is installed.

    URL is its folder or its manifest.json, or parc/[NAMESPACE/]NAME of a PartitionArchive. Exits 0 when it is as it was
    written, 1 when not.
    """
    try:
        found = open_archive(*resolve_address(url, manifest_sha256)).telling(formats.progress)
        found.prove()
    finally:
        formats.progress()
    manifest = found.manifest
    more = f", sha256 {manifest.sha256}, {found.url}" if output == "wide" else ""
    if manifest.parquet is not None:
        unread = "" if availability.is_available() else " (its sha256 alone: without pyarrow its values are not read)"
        more = f"; {manifest.parquet.bytes:,} bytes of Parquet{unread}{more}"
    line = f"{manifest.partition}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, as they were proven{more}"
    document = {"url": found.url, **manifest.model_dump(mode="json", by_alias=True)}
    formats.show(output, document, [found.url], [line])
    return 0


def resolve_address(url: str, manifest_sha256: str | None) -> tuple[str, str | None]:
    """The address of the archive's folder, and what the sha256 of its manifest must be, None where nothing says it.

    A PartitionArchive says both; it is read by the kubeconfig, from the namespace of its context where none is named.
    Raises `InvalidSpec` where there is none, or it is not proven, or says another sha256 than is demanded, and
    `ClusterUnavailable`.
    """
    if not url.startswith(OBJECT):
        return url, manifest_sha256
    namespace, _, name = url.removeprefix(OBJECT).rpartition("/")
    cluster = Policies(Target(namespace=namespace or None))
    if (found := cluster.archive(name)) is None:
        raise InvalidSpec(f"there is no PartitionArchive {name!r} in namespace {cluster.namespace!r}")
    if expired := status(found).get("expired"):
        raise InvalidSpec(f"PartitionArchive {name} is a record only: its objects were deleted at {expired}")
    location, proven = status(found).get("location"), status(found).get("manifestSha256")
    if not location or not proven:
        raise InvalidSpec(f"PartitionArchive {name} is not proven: kubectl describe parc {name} says what it waits for")
    if manifest_sha256 is not None and manifest_sha256 != proven:
        raise InvalidSpec(f"--manifest-sha256 is {manifest_sha256}, but PartitionArchive {name} says {proven}")
    return str(location), str(proven)


@click.command()
@click.argument("period", required=False)
@options.of_cluster
@click.option(
    "--timeout",
    type=click.FloatRange(0, 604800),
    default=86400.0,
    help="With PERIOD: seconds to wait until it is restored; 0: do not. Default: 86400.",
)
@click.option(
    "--expire-after",
    callback=options.age,
    metavar="AGE",
    help="With PERIOD: the operator drops the table again after that, such as 14d, if nothing in it changed.",
)
@click.option(
    "--manifest",
    "url",
    metavar="URL",
    help="The archive's folder or its manifest.json, or parc/[NAMESPACE/]NAME of a PartitionArchive.",
)
@click.option("--list", "listing", is_flag=True, help="Say which archives are there, at and below that address.")
@click.option("--dsn", help="Connection string or URI of the database to load it into; PGHOST and so on complete it.")
@click.option(
    "--as", "target", callback=options.table, metavar=options.TABLE, help="Name of the new table. Default: its own."
)
@click.option("--attach", is_flag=True, help="Make it a partition again, for its old bounds.")
@click.option(
    "--parent",
    callback=options.table,
    metavar=options.TABLE,
    help="With --attach: the table to attach it to. Default: the one that it belonged to.",
)
@options.patience("With --attach", default=300.0, most=86400)
@options.manifest_sha256
@formats.option()
def restore(
    period: str | None,
    policy: str | None,
    context: str | None,
    kubeconfig: Path | None,
    namespace: str | None,
    timeout: float,
    expire_after: str | None,
    url: str | None,
    listing: bool,
    dsn: str | None,
    target: Named,
    attach: bool,
    parent: Named,
    patience: float,
    manifest_sha256: str | None,
    output: str,
) -> int:
    """Load an archive as a table of its own, or attach it again. Exits 0 when all of it is there, 1 when none is.

    With PERIOD, such as 2019 or 2019-06, the operator does it: a PartitionRestore is made of the archive of POLICY
    that holds that period, or of all that make it up. With --manifest this command does it.
    """
    if period is not None:
        if url or dsn or listing or parent or manifest_sha256:
            meant = "" if options.known(period) else f"; {period!r} is no period: --manifest names an archive"
            raise click.UsageError(
                f"PERIOD goes with no --manifest, --list, --dsn, --parent or --manifest-sha256{meant}"
            )
        where = Target(policy=policy, context=context, kubeconfig=kubeconfig, namespace=namespace)
        return partition_restore.restore(where, period, target, attach, expire_after, timeout, output)
    if url is None or context or kubeconfig or namespace or expire_after:
        raise click.UsageError("give PERIOD to restore an archive of a policy in a cluster, or --manifest alone")
    if listing == (dsn is not None):
        raise click.UsageError("give --dsn to restore an archive, or --list to see what is there")
    if parent is not None and not attach:
        raise click.UsageError("--parent is for --attach")
    wish = RestoreRequest(
        schema=target.get("schema") if target else None,
        name=target["name"] if target else None,
        attach=attach,
        parent=(parent.get("schema", "public"), parent["name"]) if parent else None,
        patience=patience,
    )
    try:
        return _list(url, output) if dsn is None else _load(url, dsn, manifest_sha256, wish, output)
    except PartwardenError as error:
        if formats.is_data(output):
            formats.data({"error": formats.error(error)}, output)
        raise


def _load(url: str, dsn: str, manifest_sha256: str | None, wish: RestoreRequest, output: str) -> int:
    """The exit code. Raises a `PartwardenError`."""
    found = open_archive(*resolve_address(url, manifest_sha256)).telling(_say)
    _say(_summary(found.manifest))
    restored = restore_archive(found, from_dsn(dsn), wish, _say)
    document = {
        "schema": restored.schema,
        "name": restored.name,
        "rows": restored.rows,
        "attachedTo": restored.attached,
        "typesCreated": list(restored.types),
        "leftOff": [{"kind": each.kind, "name": each.name, "reason": each.reason} for each in restored.left_off],
    }
    formats.show(output, document, [options.spelled(restored.schema, restored.name)], _describe(restored))
    return 0


def _say(line: str) -> None:
    """Apart from what programs read."""
    formats.names([line], err=True)


def _list(url: str, output: str) -> int:
    """The exit code: 1 where there is one that cannot be read."""
    found = find(url)
    lines = []
    for each in found.archives:
        lines += [each.url, f"  {_summary(each.manifest)}"]
        if each.manifest.settings:
            lines.append(f"  pg_restore by hand: PGOPTIONS={shlex.quote(as_options(each.manifest.settings))}")
    if not found.archives and not found.unreadable:
        lines.append(f"no archive at {url} or below")
    documents = [each.manifest.model_dump(mode="json", by_alias=True) for each in found.archives]
    formats.show(output, documents, [each.url for each in found.archives], lines)
    for error in found.unreadable:
        _say(f"Error: {error}")
    return 1 if found.unreadable else 0


def _summary(manifest: ArchiveManifest) -> str:
    _, piece = moments(manifest.key_type, manifest.bounds)
    bounds = "without bounds" if manifest.bounds is None else "{} to {}".format(*manifest.bounds)
    if piece:
        # Its policy, and so its time zone, may be gone.
        bounds = formats.Dates.of("UTC", (piece.lower, piece.upper)).span(piece.lower, piece.upper)
    return (
        f"{manifest.partition}, {bounds}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, from PostgreSQL "
        f"{manifest.server_version}, {iso(manifest.completed.replace(microsecond=0))}, id {manifest.id}"
    )


def _describe(restored: Restored) -> list[str]:
    where = f"partition of {restored.attached}" if restored.attached else "table of its own"
    lines = [f"restored {restored.schema}.{restored.name}, a {where}: {restored.rows:,} rows, equal to the archive"]
    if restored.types:
        lines.append(f"created types: {', '.join(restored.types)}")
    return [*lines, *(f"left off: {each}" for each in restored.left_off)]
