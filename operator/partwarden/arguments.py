"""Texts of command line options -> values."""

from __future__ import annotations

import re

import click

_NAME = r'"(?:[^"]|"")+"|[^".]+'


def table(_context: click.Context, _option: click.Parameter, value: str | None) -> dict[str, str] | None:
    """``name`` or ``schema.name``, each as the catalog spells it; what holds a dot stands in double quotes."""
    if value is None:
        return None
    match = re.fullmatch(rf"(?:({_NAME})\.)?({_NAME})", value)
    if not match:
        raise click.BadParameter(f"must be a table or schema.table, found {value!r}")
    schema, name = (part and re.sub(r'^"|"$', "", part).replace('""', '"') for part in match.groups())
    return {"name": name, **({"schema": schema} if schema else {})}
