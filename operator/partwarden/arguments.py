"""Texts of command line options -> values."""

from __future__ import annotations

import re

import click

_NAME = r'"(?:[^"]|"")+"|[^".]+'


def sha256(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """64 hexadecimal digits, in lower case."""
    if value is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise click.BadParameter(f"must be the 64 hexadecimal digits of a sha256, found {value!r}")
    return value and value.lower()


manifest_sha256 = click.option(
    "--manifest-sha256",
    callback=sha256,
    metavar="HEX",
    help="What the sha256 of manifest.json must be, as the PartitionArchive's status or the report of archive says it.",
)


def table(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, str] | None:
    """``name`` or ``schema.name``, each as the catalog spells it; what holds a dot stands in double quotes."""
    if value is None:
        return None
    match = re.fullmatch(rf"(?:({_NAME})\.)?({_NAME})", value)
    if not match:
        raise click.BadParameter(f"must be a table or schema.table, found {value!r}")
    schema, name = (part and re.sub(r'^"|"$', "", part).replace('""', '"') for part in match.groups())
    return {"name": name, **({"schema": schema} if schema else {})}
