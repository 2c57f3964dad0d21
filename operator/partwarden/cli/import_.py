"""``partwarden import``: the policies that the tables of a database seem to be kept by already, as YAML.

Comments say what was assumed. Tables that pg_partman keeps are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import yaml

from ..api.policy import API_VERSION, KIND, Table
from ..api.retention import KeyEncoding
from ..api.types import OBJECT_NAME
from ..postgres.connection import Session, session
from ..postgres.conninfo import ConnectionInfo, from_dsn, is_local
from ..postgres.engine import observe_and_plan
from . import formats, options
from .formats import printable
from .guess import Found, read_tables
from .plain_tables import large_tables

REFERENCE = "database"
"""Name of the Secret that is put in where none is named: its real name is not known."""
YOURS = "  # yours: a Secret in the policy's namespace with user and password"
MOST_ACTIONS = 3
"""Actions that a comment names."""
KEYS = ("host", "port", "dbname", "user", "sslmode")
"""What of the way to the database is put into the policy: no password, and nothing that is a file here."""
FROM_HERE = "of this machine: put in the name, and the port, by which the operator reaches the server"
VERIFYING = ("verify-ca", "verify-full")
BY_SSLMODE = "by which this command connects; without it, the operator proves the server where it has a CA"
"""What comments say of a line that is only this machine's view."""


def _secret_name(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and (len(value) > 253 or not re.fullmatch(OBJECT_NAME, value)):
        raise click.UsageError(f"--secret: {value!r} is no name of a Secret")
    return value


@click.command("import", short_help="Write the policies of tables that are there.")
@options.dsn
@click.option("--table", callback=options.table, metavar=options.TABLE, help="This table only.")
@click.option("-n", "--namespace", multiple=True, callback=options.once, help="metadata.namespace of the policies.")
@click.option(
    "--secret",
    callback=_secret_name,
    help="spec.database.secretRef.name of the policies. Default: database, with a comment.",
)
@formats.option("yaml")
def command(dsn: str, table: dict[str, str] | None, namespace: str | None, secret: str | None, output: str) -> int:
    """Write the PartitionPolicy of each partitioned table that there is, as YAML: applying it changes nothing.

    Large plain tables are proposed to be converted, as comments. Nothing is written to the database. What a comment
    says was assumed is for a person to check. Exits 1 on an error, and where no table can be managed.
    """
    info, taken = from_dsn(dsn), set[str]()
    with session(info) as connection:
        found = read_tables(connection, Table.model_validate(table) if table else None)
        documents = [_document(connection, each, info, namespace, secret, taken) for each in found]
        plain = [f"# {printable(each.advice)}\n" for each in large_tables(connection)] if table is None else []
    if output == "json":
        formats.data([each for each in yaml.safe_load_all("---\n".join(documents)) if each], output)
    elif output == "name":
        formats.names(sorted(taken))
    else:
        click.echo("---\n".join(documents) + "".join(plain), nl=False)
    if not taken:
        raise click.ClickException("no table here is partitioned by RANGE on one column that says when")
    return 0


def _document(
    connection: Session, found: Found, info: ConnectionInfo, namespace: str | None, secret: str | None, taken: set[str]
) -> str:
    """One policy, whose name is added to those that are ``taken``; or a comment on why it cannot be managed."""
    table, guess = found.table, found.guess
    if guess is None:
        return f"# {printable(str(table))} is left out: {printable(str(found.error))}\n"
    spec, because = guess.spec, guess.because
    _, plan = observe_and_plan(connection, spec)
    actions = [f"{each.verb} {each.noun} {each}" for each in plan.actions[:MOST_ACTIONS]]
    if more := len(plan.actions) - len(actions):
        actions.append(f"and {more} more")
    at_once = [f"Applying it does this at once: {each}" for each in actions]
    lines = [f"# {printable(each)}" for each in (str(table), *at_once, *_beware(found))]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", "metadata:", f"  name: {_object_name(table, taken)}"]
    lines += [f"  namespace: {namespace}"] if namespace else []
    lines += ["spec:", "  database:", "    secretRef:"]
    lines += [f"      name: {secret}" if secret else f"      name: {REFERENCE}{YOURS}"]
    lines += _connection(info)
    lines += ["  table:", f"    schema: {_scalar(table.schema_)}", f"    name: {_scalar(table.name)}"]
    fields: dict[str, str | int | None] = {
        "key": found.key,
        "keyEncoding": None if spec.key_encoding is KeyEncoding.NATIVE else spec.key_encoding.value,
        "interval": spec.interval.value,
        "timezone": None if spec.timezone == "UTC" and "timezone" not in because else spec.timezone,
        "premake": spec.premake,
        "startFrom": spec.start_from,
        "nameFormat": spec.name_format,
    }
    for field, field_value in fields.items():
        why = f"  # {because[field]}" if field in because else ""
        if field_value is not None:
            lines.append(f"  {field}: {_scalar(field_value)}{why}")
        elif why and field == "nameFormat":
            lines.append(f"  # {field}: {because[field]}")
    lines.append("  # retention: absent, so nothing is ever detached or dropped")
    return "\n".join(lines) + "\n"


def _connection(info: ConnectionInfo) -> list[str]:
    """The way to the database, and as comments what of it is only this machine's."""
    given = {key: info.parameters.get(key) for key in KEYS}
    comments = {
        **({} if given["sslmode"] in VERIFYING else {"sslmode": BY_SSLMODE}),
        **(dict.fromkeys(("host", "port"), FROM_HERE) if is_local(info.parameters) else {}),
    }
    lines = []
    for key, value in given.items():
        text = "" if not value else f" {_scalar(int(value) if key == 'port' else value)}"
        if key in comments and (text or key == "host"):
            lines.append(f"      # {key}:{text}  # {comments[key]}")
        elif text:
            lines.append(f"      {key}:{text}")
    # Without a line that counts, connection would be null.
    counts = any(not each.lstrip().startswith("#") for each in lines)
    return [f"    {'' if counts else '# '}connection:", *lines]


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


def _scalar(value: str | int) -> str:
    """As YAML has it, quoted where it must be; dates and the like as well, which are texts here."""
    if isinstance(value, int):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_/.-]*", value) and yaml.safe_load(value) == value
    return value if plain else yaml.safe_dump(value, default_style='"', width=10**6, allow_unicode=True).strip()


def _object_name(table: Table, taken: set[str]) -> str:
    """Of an object in Kubernetes, once: with the schema, then a number, where it is taken."""
    words = [table.name, f"{table.schema_}-{table.name}", *(f"{table.name}-{number}" for number in range(2, 1000))]
    for each in words:
        name = re.sub(r"[^a-z0-9]+", "-", each.lower()).strip("-")[:200] or "table"
        if name not in taken:
            taken.add(name)
            return name
    raise AssertionError("a thousand tables of one name")
