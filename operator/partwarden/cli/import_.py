"""``partwarden import``: the policies that the tables of a database seem to be kept by already, as YAML.

Comments say what was assumed. Tables that pg_partman keeps are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click
import psycopg
import yaml
from psycopg import sql

from ..api.policy import API_VERSION, KIND, Table, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import OBJECT_NAME
from ..errors import PartwardenError, TableNotFound, UnknownTimeZone
from ..planner.calendar import load_zone
from ..planner.context import check_table
from ..postgres import catalog
from ..postgres.catalog import newest
from ..postgres.connection import Session, pinned, run, session
from ..postgres.conninfo import ConnectionInfo, from_dsn
from ..postgres.engine import observe_and_plan
from . import formats, options
from . import guess as cli_guess
from .formats import printable

REFERENCE = "database"
"""Name of the Secret that is put in where none is named: its real name is not known."""
YOURS = "  # yours: a Secret in the policy's namespace with user and password"
MOST_ACTIONS = 3
"""Actions that a comment names."""
KEYS = ("host", "port", "dbname", "user", "sslmode")
"""What of the way to the database is put into the policy: no password, and nothing that is a file here."""


@click.command("import", short_help="Write the policies of tables that are there.")
@click.option(
    "--dsn", required=True, help="Connection string or URI; PGHOST, PGPASSWORD, ~/.pgpass and so on complete it."
)
@click.option("--table", callback=options.table, metavar="[SCHEMA.]NAME", help="This table only.")
@click.option("--namespace", "-n", callback=options.text, help="metadata.namespace of the policies.")
@click.option("--secret", help="spec.database.secretRef.name of the policies. Default: database, with a comment.")
@formats.option("yaml")
def command(dsn: str, table: dict[str, str] | None, namespace: str | None, secret: str | None, output: str) -> int:
    """Write the PartitionPolicy of each partitioned table that there is, as YAML: applying it changes nothing.

    Nothing is written to the database. What a comment says was assumed is for a person to check. Exits 1 on an error,
    and where no table can be managed.
    """
    only = Table.model_validate(table) if table else None
    scope = Scope(namespace, _secret_name(secret), set())
    info = from_dsn(dsn)
    with session(info) as connection:
        documents = [_document(connection, each, info, scope) for each in read_tables(connection, only)]
    if output == "json":
        formats.data([each for each in yaml.safe_load_all("---\n".join(documents)) if each], output)
    elif output == "name":
        formats.names(sorted(scope.taken))
    else:
        click.echo("---\n".join(documents), nl=False)
    if not scope.taken:
        raise click.ClickException("no table here is partitioned by RANGE on one column that says when")
    return 0


def _secret_name(secret: str | None) -> str | None:
    if secret is not None and (len(secret) > 253 or not re.fullmatch(OBJECT_NAME, secret)):
        raise click.UsageError(f"--secret: {secret!r} is no name of a Secret")
    return secret


# The policies, as YAML.


@dataclass(frozen=True, slots=True)
class Scope:
    """What all policies of a run have in common."""

    namespace: str | None
    secret: str | None
    """The name of their Secret, where it is known."""
    taken: set[str]
    """Names of policies."""


def _document(connection: Session, found: Found, info: ConnectionInfo, scope: Scope) -> str:
    """One policy, whose name is added to those that are taken; or a comment on why it cannot be managed."""
    table, guess = found.table, found.guess
    if guess is None:
        return f"# {printable(str(table))} is left out: {printable(str(found.error))}\n"
    _, plan = observe_and_plan(connection, cli_guess.spec(table, guess))
    actions = [f"{each.verb} {each.noun} {each}" for each in plan.actions]
    lines = [f"# {printable(each)}" for each in (str(table), *_at_once(actions), *_beware(found))]
    lines += [f"apiVersion: {API_VERSION}", f"kind: {KIND}", "metadata:", f"  name: {_object_name(table, scope.taken)}"]
    lines += [f"  namespace: {scope.namespace}"] if scope.namespace else []
    lines += ["spec:", "  database:", "    secretRef:"]
    lines += [f"      name: {scope.secret}" if scope.secret else f"      name: {REFERENCE}{YOURS}"]
    where = {key: int(value) if key == "port" else value for key in KEYS if (value := info.parameters.get(key))}
    if where:
        lines += ["    connection:", *(f"      {field}: {_scalar(value)}" for field, value in where.items())]
    lines += ["  table:", f"    schema: {_scalar(table.schema_)}", f"    name: {_scalar(table.name)}"]
    fields: dict[str, str | int | None] = {
        "key": found.key,
        "keyEncoding": None if guess.encoding is KeyEncoding.NATIVE else guess.encoding.value,
        "interval": guess.interval.value,
        "timezone": None if guess.timezone == "UTC" and "timezone" not in guess.because else guess.timezone,
        "premake": guess.premake,
        "startFrom": guess.start_from,
        "nameFormat": guess.name_format,
    }
    for field, field_value in fields.items():
        why = f"  # {guess.because[field]}" if field in guess.because else ""
        if field_value is not None:
            lines.append(f"  {field}: {_scalar(field_value)}{why}")
        elif why and field == "nameFormat":
            lines.append(f"  # {field}: {guess.because[field]}")
    lines.append("  # retention: absent, so nothing is ever detached or dropped")
    return "\n".join(lines) + "\n"


def _at_once(actions: list[str]) -> Iterator[str]:
    more = [f"and {len(actions) - MOST_ACTIONS} more"] if len(actions) > MOST_ACTIONS else []
    for each in actions[:MOST_ACTIONS] + more:
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


# What the database says of its tables.

ROOTS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND ({name}::text IS NULL OR (n.nspname, c.relname) = ({schema}::text, {name}::text))
ORDER BY n.nspname, c.relname
"""
PARTMAN = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'part_config' AND c.relkind = 'r'
  AND 3 = (SELECT count(*) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attname IN ('parent_table', 'premake', 'retention'))
"""

# Not that of this transaction, which is pinned.
ZONE = "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"
KEPT = """
SELECT parent_table, premake::text, retention, coalesce(to_jsonb(c) ->> 'automatic_maintenance', 'on') <> 'off'
FROM {}.part_config c
"""

# What only a partition has, as of a template of pg_partman, no new one will have.
OWN_INDEXES = """
SELECT i.indexrelid::regclass::text FROM pg_index i
WHERE i.indrelid = {newest} AND i.indisunique
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Partman:
    """What pg_partman's part_config says of a table. ``automatic``: whether its maintenance keeps it by itself."""

    premake: str
    retention: str | None
    automatic: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One table: what it seems to be kept by, or ``error``, why it cannot be managed."""

    table: Table
    key: str = ""
    """The column of the partition key."""
    guess: cli_guess.Guess | None = None
    error: PartwardenError | None = None
    partman: Partman | None = None
    """Its row in the configuration of pg_partman."""
    own_indexes: tuple[str, ...] = ()
    """Unique indexes of the newest partition alone."""


def read_tables(connection: Session, only: Table | None = None) -> list[Found]:
    """Read all tables that are partitioned and no partitions themselves, by schema and name, or the one asked for.

    Raises `TableNotFound` where that is none of them, and psycopg's errors.
    """
    name, schema = (only.name, only.schema_) if only else (None, None)
    _, roots, places, ((zone,),) = run(
        connection, pinned("500ms", "30s"), sql.SQL(ROOTS).format(name=name, schema=schema), PARTMAN, ZONE
    )
    zone = _known(zone)
    if only and not roots:
        raise TableNotFound(
            f"there is no partitioned table {only} in database {connection.info.dbname!r}, or role "
            f"{connection.info.user!r} may not see it: correct --table (names are matched exactly)"
        )
    kept = _partman(connection, [place for (place,) in places])
    tables = [_read(connection, Table(schema_=schema, name=name), zone) for schema, name in roots]
    return [replace(each, partman=kept.get(str(each.table))) for each in tables]


def _known(zone: str) -> str:
    """The server may know zones by names that are not in the database of IANA."""
    try:
        load_zone(zone)
    except UnknownTimeZone:
        return "UTC"
    return zone


def _partman(connection: Session, places: list[str]) -> dict[str, Partman]:
    """By the table's name as pg_partman spells it. What may not be read is not asked for again."""
    kept: dict[str, Partman] = {}
    for place in places:
        try:
            rows = run(connection, sql.SQL(KEPT).format(sql.Identifier(place)))[0]
        except psycopg.errors.InsufficientPrivilege:
            continue
        kept |= {name: Partman(*fields) for name, *fields in rows}
    return kept


def _read(connection: Session, table: Table, zone: str) -> Found:
    spec = TableSpec(table=table)
    first = catalog.observe(connection, spec)
    key = first.parent.key[0].type if first.parent and len(first.parent.key) == 1 else ""
    seen = {
        each: catalog.observe(connection, spec.model_copy(update={"key_encoding": each}))
        for each in cli_guess.encodings(key)
    }
    try:
        encoding = cli_guess.best_encoding(seen) if seen else spec.key_encoding
        chosen = spec.model_copy(update={"key_encoding": encoding})
        inventory = seen.get(encoding, first)
        _, column, codec = check_table(chosen, inventory)
    except PartwardenError as error:
        return Found(table, error=error)
    (indexes,) = run(connection, sql.SQL(OWN_INDEXES).format(newest=newest(inventory)))
    guess = cli_guess.guess(encoding, inventory, codec.aware, zone)
    return Found(table, column, guess, own_indexes=tuple(name for (name,) in indexes))
