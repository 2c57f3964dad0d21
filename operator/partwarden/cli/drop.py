"""``partwarden drop``: the one command that loses rows, and asks before it does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from ..api.policy import APPROVAL
from ..api.retention import OnLargeObjects
from ..archive.verify import open_archive
from ..errors import InvalidSpec
from ..planner.actions import Outcome
from ..planner.findings import along, pointing
from ..postgres.connection import Session, session
from ..postgres.conninfo import from_dsn
from ..status.details import human, span
from . import completion, database_tables, drop_database, formats, manifest, options, render
from .archive import resolve_address
from .options import Target, target


@dataclass(frozen=True, slots=True)
class Consent:
    """How somebody agrees: ``yes`` without being asked, ``without_archive`` to losing the rows."""

    yes: bool
    without_archive: bool
    output: str


@click.command(short_help="Drop one past partition; asks before.")
@click.argument("what", metavar="PERIOD|NAME", callback=options.text)
@target(completion.policies)
@click.option(
    "--archive",
    "url",
    metavar="URL",
    help="With --dsn: the archive of it, by its folder or manifest.json.",
)
@options.manifest_sha256
@click.option("--without-archive", is_flag=True, help="Drop it although no archive holds its rows: they are lost.")
@click.option(
    "--without-large-objects",
    is_flag=True,
    help="With --dsn and --archive: drop it although its rows point to large objects, which no archive holds.",
)
@click.option("--yes", is_flag=True, help="Do not ask, where an archive is proven.")
@click.option(
    "--patience",
    type=click.FloatRange(0, 3600),
    default=10.0,
    help="With --dsn: seconds to wait for locks. Default: 10.",
)
@formats.option()
def drop(
    what: str,
    target: Target,
    url: str | None,
    manifest_sha256: str | None,
    without_archive: bool,
    without_large_objects: bool,
    yes: bool,
    patience: float,
    output: str,
) -> int:
    """Drop one past partition, by its name or a PERIOD such as 2020. Shows what is there, and asks for its name.

    With --dsn it is compared with its archive, detached, and dropped if it is equal still. On POLICY it is approved:
    the operator drops it once all that the policy demands is so. Exits 0 when that is done, 1 when not.
    """
    consent = Consent(yes, without_archive, output)
    if url is not None and without_archive:
        raise click.UsageError("--archive and --without-archive exclude each other")
    if manifest_sha256 is not None and url is None:
        raise click.UsageError("--manifest-sha256 goes with --archive")
    if target.dsn is None:
        if url is not None:
            raise click.UsageError("--archive goes with --dsn: of a policy, its PartitionArchives tell")
        if without_large_objects:
            raise click.UsageError(
                "--without-large-objects goes with --dsn: of a policy, spec.retention.largeObjects tells"
            )
        return _approve(target, what, consent)
    held = _held(target)
    with session(from_dsn(target.dsn)) as connection:
        spec = database_tables.spec(connection, target.table, target.filename)
        found = drop_database.find(connection, spec, what, held)
        known = spec.retention is not None and spec.retention.large_objects is OnLargeObjects.LEAVE_OUT
        knows = OnLargeObjects.LEAVE_OUT if known or without_large_objects else OnLargeObjects.REFUSE
        return _drop(connection, found, url, manifest_sha256, consent, patience, knows)


def _held(target: Target) -> frozenset[str]:
    if target.filename is None:
        return frozenset()
    if target.filename == "-":
        raise click.UsageError("-f - cannot be read twice, and drop may have to ask: give a file")
    return manifest.load(manifest.read(target.filename), target.filename, table=target.table, needs_database=False).held


def _drop(
    connection: Session,
    found: drop_database.Found,
    url: str | None,
    manifest_sha256: str | None,
    consent: Consent,
    patience: float,
    knows: OnLargeObjects,
) -> int:
    name, table = found.table.name, found.table
    rows = database_tables.rows(connection, table.schema, name)
    _show(consent, [f"{found}, {span(found.range)}: {rows:,} rows, {human(table.bytes)}, of {found.plan.parent}"])
    if said := along(named := drop_database.tied(connection, found)):
        _show(consent, [said])
    if columns := drop_database.pointing_columns(connection, found):
        if url is not None and knows is OnLargeObjects.REFUSE:
            raise pointing(found, columns, "dropped")
        _show(consent, [f"large objects that column {', '.join(columns)} points to stay, and are in no archive"])
    proven, where = None, ""
    if url is not None:
        formats.progress(f"reading the archive at {url}, and the table beside it")
        try:
            archive = open_archive(*resolve_address(url, manifest_sha256)).telling(formats.progress)
            proven, where = drop_database.compare(connection, found, archive), archive.url
        finally:
            formats.progressed()
        _show(consent, [f"archived at {where}, read just now: all {proven.rows:,} rows are equal"])
    elif not consent.without_archive:
        raise InvalidSpec(
            f"{found} is not dropped: no archive of it is named. Make one by `partwarden archive --dsn … --partition "
            f"{_argument(table.schema, name)} --to URL` and name it by --archive, or say --without-archive"
        )
    else:
        _show(consent, [f"NO ARCHIVE: these {rows:,} rows are lost for ever, and no command brings them back"])
    _agree(consent, name, proven is not None, "drop it")
    outcomes: list[Outcome] = []
    try:
        drop_database.remove(connection, found, proven, where, patience, outcomes, named, knows)
    except Exception:
        # Such as a connection that was lost between two steps: what was done is printed before the reason.
        _show(consent, _done(outcomes))
        raise
    failed = next((each for each in outcomes if each.error), None)
    done = _done(outcomes)
    if formats.is_data(consent.output):
        error = {"reason": failed.error.reason, "message": str(failed.error)} if failed and failed.error else None
        about = {"partition": str(found), "rows": rows, "archive": where or None, "dropped": failed is None}
        formats.data({**about, "error": error}, consent.output)
    elif consent.output == "name":
        formats.names([] if failed else [str(found)])
    else:
        formats.names(done)
    if failed:
        left = " It is detached, a table of its own with all its rows; the same command goes on" if done else ""
        click.echo(render.printable(f"Error: {failed.error}.{left}"), err=True)
    return 1 if failed else 0


def _done(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{each.action.past} {each.action.noun} {each.action}" for each in outcomes if each.error is None]


def _argument(schema: str, name: str) -> str:
    """For a command line to be copied."""
    return shlex.quote(options.spelled(schema, name))


def _approve(target: Target, what: str, consent: Consent) -> int:
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from ..controller.archive_status import PROVEN
    from . import cluster_policies, policy_changes, policy_view
    from .policy_changes import keeper

    policies = cluster_policies.Policies(target.where)
    policy = policies.one(target.policy)
    spec = policies.spec(policy)
    each = policy_changes.find(policy, spec, what)
    name, whole = each["name"], policy_view.name(policy)
    archive = policy_view.archive_of(policy, name, policies.archives())
    state = policy_view.archive_state(archive)
    _show(consent, policy_changes.shown(policy, each, archive))
    assert spec.retention is not None
    if spec.retention.archive is None:
        if not consent.without_archive:
            raise InvalidSpec(f"{name} is not approved: {whole} has no spec.retention.archive; say --without-archive")
        _show(consent, ["NO ARCHIVE: its rows are lost for ever, and no command brings them back"])
    elif consent.without_archive:
        raise InvalidSpec(f"{whole} has spec.retention.archive: the operator drops nothing without one")
    _agree(consent, name, state == PROVEN, "let the operator drop it")
    change = policy_changes.change(policy, each)
    if change:
        policies.edit(policy, change)
    annotation = (change or policy)["metadata"]["annotations"][APPROVAL]
    done = [f"approved {name}: the operator drops it once its grace is over and its archive was read again"]
    if change and (who := keeper(policy)):
        done += [f"{who} keeps this policy: put this line into metadata.annotations of the manifest it is made from:"]
        done += [f"  {APPROVAL}: {annotation}"]
    if formats.is_data(consent.output):
        about = {"policy": whole, "partition": name, "archive": state or None}
        formats.data({**about, "approved": annotation}, consent.output)
    else:
        formats.names([name] if consent.output == "name" else done)
    return 0


def _show(consent: Consent, lines: Sequence[str]) -> None:
    """Before anybody is asked; apart from what programs read."""
    for each in lines:
        click.echo(render.printable(each), err=consent.output not in ("text", "wide"))


def _agree(consent: Consent, name: str, proven: bool, what: str) -> None:
    """Raises `InvalidSpec` unless somebody has typed the name, or said yes where an archive is proven."""
    if consent.yes and proven:
        return
    if consent.yes:
        raise InvalidSpec(f"nothing is done: --yes goes with a proven archive only, and {name} has none")
    if not sys.stdin.isatty():
        raise InvalidSpec("nothing is done: there is no terminal to ask at; with a proven archive, say --yes")
    typed = click.prompt(f"Type {name} to {what}", default="", show_default=False, err=True)
    if typed != name:
        raise InvalidSpec(f"nothing is done: that was not {name}")
