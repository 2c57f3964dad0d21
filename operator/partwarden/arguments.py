"""Texts of command line options -> values."""

from __future__ import annotations

import re

import click

# Within quotes a double quote is written twice. A name without quotes holds no dot, and does not begin with a quote.
_NAME = r'"((?:[^"]|"")+)"|([^".][^.]*)'
_TABLE = re.compile(rf"(?:(?:{_NAME})\.)?(?:{_NAME})", re.DOTALL)


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
    match = _TABLE.fullmatch(value)
    if not match or "\0" in value:
        raise click.BadParameter(
            f"must be a table or schema.table, found {value!r}; put a name that holds a dot in double quotes, as in "
            '\'"my.schema"."my.table"\', and write a double quote in it twice'
        )
    quoted_schema, plain_schema, quoted_name, plain_name = match.groups()
    schema, name = _text(quoted_schema, plain_schema), _text(quoted_name, plain_name)
    return {"name": name, **({"schema": schema} if schema else {})}


def _text(quoted: str | None, plain: str | None) -> str:
    return quoted.replace('""', '"') if quoted is not None else plain or ""


def spelled(*names: str) -> str:
    """Schema and name, or a name, as `table` reads them back: in double quotes where they must be."""
    return ".".join(
        '"' + each.replace('"', '""') + '"' if "." in each or each.startswith('"') else each for each in names
    )


def text(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Any text but an empty one, which is what a shell makes of a variable that is not set."""
    if value is not None and not value.strip():
        raise click.BadParameter("must not be empty")
    return value
