"""``partwarden restore``: the way back."""

from __future__ import annotations

import shlex
from typing import Any

import click

from ..archive.manifest import ArchiveManifest
from ..archive.restore import Restored, RestoreRequest, restore
from ..archive.verify import find, open_archive
from ..errors import PartwardenError
from ..postgres.conninfo import from_dsn
from ..postgres.settings import as_options
from . import formats, options
from .archive import resolve_address
from .formats import printable

Named = dict[str, str] | None


@click.command("restore")
@click.option(
    "--manifest",
    "url",
    required=True,
    metavar="URL",
    help="The archive's folder or its manifest.json, or parc/[NAMESPACE/]NAME of a PartitionArchive.",
)
@click.option("--list", "listing", is_flag=True, help="Say which archives are there, at and below that address.")
@click.option("--dsn", help="Connection string or URI of the database to load it into; PGHOST and so on complete it.")
@click.option(
    "--as", "target", callback=options.table, metavar="[SCHEMA.]NAME", help="Name of the new table. Default: its own."
)
@click.option("--attach", is_flag=True, help="Make it a partition again, for its old bounds.")
@click.option(
    "--parent",
    callback=options.table,
    metavar="[SCHEMA.]NAME",
    help="With --attach: the table to attach it to. Default: the one that it belonged to.",
)
@options.patience("With --attach", default=300.0, most=86400)
@options.manifest_sha256
@formats.option()
def command(
    url: str,
    listing: bool,
    dsn: str | None,
    target: Named,
    attach: bool,
    parent: Named,
    patience: float,
    manifest_sha256: str | None,
    output: str,
) -> int:
    """Load an archive as a table of its own, or attach it again. Exits 0 when all of it is there, 1 when none is."""
    if listing == (dsn is not None):
        raise click.UsageError("give --dsn to restore an archive, or --list to see what is there")
    if parent is not None and not attach:
        raise click.UsageError("--parent is for --attach")
    try:
        if listing:
            return _list(url, output)
        assert dsn is not None
        wish = _wish(target, attach, parent, patience)
        archive = open_archive(*resolve_address(url, manifest_sha256)).telling(_say)
        _say(summary(archive.manifest))
        restored = restore(archive, from_dsn(dsn), wish, _say)
    except PartwardenError as error:
        if formats.is_data(output):
            formats.data({"error": {"reason": error.reason, "message": str(error)}}, output)
        raise formats.failure(error) from None
    if formats.is_data(output):
        formats.data(_document(restored), output)
    else:
        click.echo(printable(options.spelled(restored.schema, restored.name)) if output == "name" else _text(restored))
    return 0


def _say(line: str) -> None:
    """Apart from what programs read."""
    click.echo(printable(line), err=True)


def _wish(target: Named, attach: bool, parent: Named, patience: float) -> RestoreRequest:
    return RestoreRequest(
        schema=target.get("schema") if target else None,
        name=target["name"] if target else None,
        attach=attach,
        parent=(parent.get("schema", "public"), parent["name"]) if parent else None,
        patience=patience,
    )


def _list(url: str, output: str) -> int:
    """The exit code: 1 where there is one that cannot be read."""
    found = find(url)
    if formats.is_data(output):
        formats.data([each.manifest.model_dump(mode="json", by_alias=True) for each in found.archives], output)
    elif output == "name":
        formats.names(each.url for each in found.archives)
    else:
        for each in found.archives:
            click.echo(f"{printable(each.url)}\n  {printable(summary(each.manifest))}")
            if each.manifest.settings:
                click.echo(
                    f"  pg_restore by hand: PGOPTIONS={printable(shlex.quote(as_options(each.manifest.settings)))}"
                )
        if not found.archives and not found.unreadable:
            click.echo(f"no archive at {url} or below")
    for error in found.unreadable:
        _say(f"Error: {error}")
    return 1 if found.unreadable else 0


def summary(manifest: ArchiveManifest) -> str:
    """One line for people."""
    bounds = "without bounds" if manifest.bounds is None else "{} to {}".format(*manifest.bounds)
    return (
        f"{manifest.partition}, {bounds}: {manifest.rows:,} rows, {manifest.bytes:,} bytes, from PostgreSQL "
        f"{manifest.server_version}, {manifest.completed:%Y-%m-%d %H:%M}Z, id {manifest.id}"
    )


def _text(restored: Restored) -> str:
    where = f"partition of {restored.attached}" if restored.attached else "table of its own"
    lines = [f"restored {restored.schema}.{restored.name}, a {where}: {restored.rows:,} rows, equal to the archive"]
    if restored.types:
        lines.append(f"created types: {', '.join(restored.types)}")
    lines += [f"left off: {each}" for each in restored.left_off]
    return "\n".join(printable(line) for line in lines)


def _document(restored: Restored) -> dict[str, Any]:
    return {
        "schema": restored.schema,
        "name": restored.name,
        "rows": restored.rows,
        "attachedTo": restored.attached,
        "typesCreated": list(restored.types),
        "leftOff": [{"kind": each.kind, "name": each.name, "reason": each.reason} for each in restored.left_off],
    }
