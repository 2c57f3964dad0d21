"""``partwarden import``: the policies that a database seems to be kept by already."""

from __future__ import annotations

import click
import yaml

from . import arguments, guessing, import_text, importing, outputs
from .connection import ConnectionInfo, from_dsn
from .engine import observe_and_plan
from .errors import PartwardenError
from .importing import Found
from .policy import Table
from .session import Session, session

SHOWN = 3
"""Actions that a comment names."""
KEYS = ("host", "port", "dbname", "user", "sslmode")
"""What of the way to the database is put into the policy: no password, and nothing that is a file here."""


@click.command("import")
@click.option(
    "--dsn", required=True, help="Connection string or URI; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it."
)
@click.option("--table", callback=arguments.table, metavar="[SCHEMA.]NAME", help="This table only.")
@click.option("--namespace", "-n", help="metadata.namespace of the policies.")
@outputs.option("yaml")
def command(dsn: str, table: dict[str, str] | None, namespace: str | None, output: str) -> int:
    """Write the PartitionPolicy of each partitioned table that there is, as YAML: applying it changes nothing.

    Nothing is written to the database. What a comment says was assumed is for a person to check. Exits 1 on an error,
    and where no table can be managed.
    """
    only = Table.model_validate(table) if table else None
    try:
        info = from_dsn(dsn)
        with session(info) as connection:
            found = importing.look(connection, only)
            documents, taken = [], set[str]()
            for each in found:
                documents.append(_document(connection, each, info, namespace, taken))
    except PartwardenError as error:
        raise click.ClickException(str(error)) from None
    if output == "json":
        outputs.data([each for each in yaml.safe_load_all("---\n".join(documents)) if each], output)
    elif output == "name":
        outputs.names(sorted(taken))
    else:
        click.echo("---\n".join(documents), nl=False)
    if not taken:
        raise click.ClickException("no table here is partitioned by RANGE on one column that says when")
    return 0


def _document(connection: Session, found: Found, info: ConnectionInfo, namespace: str | None, taken: set[str]) -> str:
    if found.guess is None:
        assert found.error is not None
        return import_text.refused(found.table, found.error)
    assert found.inventory is not None
    assert found.inventory.parent is not None
    guess, key = found.guess, found.inventory.parent.key[0].column or ""
    _, plan = observe_and_plan(connection, guessing.spec(found.table, guess))
    left = [f"{each.verb} {each.noun} {each}" for each in plan.actions]
    more = [f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    where: dict[str, str | int] = {key: value for key in KEYS if (value := info.parameters.get(key))}
    if "port" in where:
        where["port"] = int(where["port"])
    return import_text.document(found.table, guess, key, where, left[:SHOWN] + more, found.partman, namespace, taken)
