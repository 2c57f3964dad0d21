"""``partwarden import``: the policies that a database seems to be kept by already."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import yaml

from . import arguments, guessing, import_text, importing, outputs
from .connection import ConnectionInfo, from_dsn
from .engine import observe_and_plan
from .errors import PartwardenError
from .fields import OBJECT_NAME
from .importing import Found
from .policy import Table
from .session import Session, session

SHOWN = 3
"""Actions that a comment names."""
KEYS = ("host", "port", "dbname", "user", "sslmode")
"""What of the way to the database is put into the policy: no password, and nothing that is a file here."""


@click.command("import", short_help="Write the policies of tables that are there.")
@click.option(
    "--dsn", required=True, help="Connection string or URI; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it."
)
@click.option("--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="This table only.")
@click.option("--namespace", "-n", callback=arguments.text, help="metadata.namespace of the policies.")
@click.option("--secret", help="spec.database.secretRef.name of the policies. Default: database, with a comment.")
@outputs.option("yaml")
def command(dsn: str, table: dict[str, str] | None, namespace: str | None, secret: str | None, output: str) -> int:
    """Write the PartitionPolicy of each partitioned table that there is, as YAML: applying it changes nothing.

    Nothing is written to the database. What a comment says was assumed is for a person to check. Exits 1 on an error,
    and where no table can be managed.
    """
    only = Table.model_validate(table) if table else None
    scope = import_text.Scope(namespace, _name(secret), set())
    try:
        info = from_dsn(dsn)
        with session(info) as connection:
            found = importing.look(connection, only)
            documents = [_document(connection, each, info, scope) for each in found]
    except PartwardenError as error:
        raise click.ClickException(str(error)) from None
    if output == "json":
        outputs.data([each for each in yaml.safe_load_all("---\n".join(documents)) if each], output)
    elif output == "name":
        outputs.names(sorted(scope.taken))
    else:
        click.echo("---\n".join(documents), nl=False)
    if not scope.taken:
        raise click.ClickException("no table here is partitioned by RANGE on one column that says when")
    return 0


def _name(secret: str | None) -> str | None:
    if secret is not None and (len(secret) > 253 or not re.fullmatch(OBJECT_NAME, secret)):
        raise click.UsageError(f"--secret: {secret!r} is no name of a Secret")
    return secret


def _document(connection: Session, found: Found, info: ConnectionInfo, scope: import_text.Scope) -> str:
    if found.guess is None:
        assert found.error is not None
        return import_text.refused(found.table, found.error)
    assert found.inventory is not None
    assert found.inventory.parent is not None
    guess, key = found.guess, found.inventory.parent.key[0].column or ""
    _, plan = observe_and_plan(connection, guessing.spec(found.table, guess))
    warnings = [*_at_once([f"{each.verb} {each.noun} {each}" for each in plan.actions]), *_beware(found)]
    where: dict[str, str | int] = {key: value for key in KEYS if (value := info.parameters.get(key))}
    if "port" in where:
        where["port"] = int(where["port"])
    return import_text.document(found.table, guess, key, where, warnings, scope)


def _at_once(left: list[str]) -> Iterator[str]:
    more = [f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    for each in left[:SHOWN] + more:
        yield f"Applying it does this at once: {each}"


def _beware(found: Found) -> Iterator[str]:
    if kept := found.partman:
        about = f"premake {kept.premake}" + (f", retention {kept.retention!r}" if kept.retention else "")
        if kept.automatic:
            yield f"pg_partman keeps this table as well ({about}): take it out of part_config first"
        else:
            yield f"pg_partman has this table in part_config ({about}), with automatic_maintenance off"
    if found.own_indexes:
        names = ", ".join(found.own_indexes)
        yield f"The newest partition alone has {names}: no new partition will, until the parent has such an index"
