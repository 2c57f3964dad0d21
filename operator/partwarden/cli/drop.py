"""``partwarden drop``: the one command that loses rows, and asks before it does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from ..api.archive import Fingerprint
from ..api.policy import APPROVAL, HOLD, PartitionPolicySpec, holds, is_held, parse
from ..api.retention import Approval, OnExpire, OnLargeObjects
from ..api.status import PartitionStatus, State
from ..api.validation import parse_spec
from ..archive.verify import open_archive
from ..controller.archive_status import PROVEN
from ..errors import InvalidSpec
from ..planner.actions import Outcome
from ..planner.findings import along, pointing
from ..postgres.connection import Session, session
from ..postgres.conninfo import from_dsn
from ..status.details import human, span
from . import drop_database, formats, manifest, options, policies, tables
from .archive import resolve_address
from .options import Target, target
from .policies import Object, Policies
from .tables import ArchiveView, ends


@dataclass(frozen=True, slots=True)
class Consent:
    """How the user agrees: ``yes`` without being asked, ``without_archive`` to losing the rows."""

    yes: bool
    without_archive: bool
    output: str

    def show(self, *lines: str) -> None:
        """Before the user is asked; apart from what programs read."""
        formats.names(lines, err=self.output not in ("text", "wide"))

    def demand(self, name: str, proven: bool, what: str) -> None:
        """Raises `InvalidSpec` unless the user types the name, or says --yes where an archive is proven."""
        if self.yes and proven:
            return
        if self.yes:
            raise InvalidSpec(f"nothing is done: --yes goes with a proven archive only, and {name} has none")
        if not sys.stdin.isatty():
            raise InvalidSpec("nothing is done: there is no terminal to ask at; with a proven archive, say --yes")
        typed = click.prompt(f"Type {name} to {what}", default="", show_default=False, err=True)
        if typed != name:
            raise InvalidSpec(f"nothing is done: that was not {name}")


@click.command(short_help="Drop one past partition; asks before.")
@click.argument("what", metavar="PERIOD|NAME", callback=options.text)
@target()
@click.option("--archive", "url", metavar="URL", help="With --dsn: the archive of it, by its folder or manifest.json.")
@options.manifest_sha256
@click.option("--without-archive", is_flag=True, help="Drop it although no archive holds its rows: they are lost.")
@click.option(
    "--without-large-objects",
    is_flag=True,
    help="With --dsn and --archive: drop it although its rows point to large objects, which no archive holds.",
)
@click.option("--yes", is_flag=True, help="Do not ask, where an archive is proven.")
@options.patience("With --dsn")
@formats.option()
def drop(
    target: Target,
    what: str,
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
            raise click.UsageError("--archive goes with --dsn: a policy's archives are its PartitionArchives")
        if without_large_objects:
            raise click.UsageError(
                "--without-large-objects goes with --dsn: of a policy, spec.retention.largeObjects decides"
            )
        return _approve(target, what, consent)
    if target.filename == "-":
        raise click.UsageError("-f - cannot be read twice, and drop may have to ask: give a file")
    held = tables.policy_file(target).held if target.filename is not None else frozenset[str]()
    with session(from_dsn(target.dsn)) as connection:
        spec = tables.only_spec(connection, target)
        found = drop_database.find(connection, spec, what, held)
        leaves_out = spec.retention is not None and spec.retention.large_objects is OnLargeObjects.LEAVE_OUT
        objects = OnLargeObjects.LEAVE_OUT if leaves_out or without_large_objects else OnLargeObjects.REFUSE
        return _drop(connection, found, url, manifest_sha256, consent, patience, objects)


def _drop(
    connection: Session,
    found: drop_database.Found,
    url: str | None,
    manifest_sha256: str | None,
    consent: Consent,
    patience: float,
    large_objects: OnLargeObjects,
) -> int:
    name, table = found.table.name, found.table
    rows = tables.count_rows(connection, table)
    consent.show(f"{found}, {span(found.range)}: {rows:,} rows, {human(table.bytes)}, of {found.plan.parent}")
    if kept := along(ties := drop_database.tied(connection, found)):
        consent.show(kept)
    if columns := drop_database.pointing_columns(connection, found):
        if url is not None and large_objects is OnLargeObjects.REFUSE:
            raise pointing("drop", found, columns)
        consent.show(f"large objects that column {', '.join(columns)} points to stay, and are in no archive")
    proven, where = None, ""
    if url is not None:
        proven, where = _prove(connection, found, url, manifest_sha256)
        consent.show(f"archived at {where}, read just now: all {proven.rows:,} rows are equal")
    elif not consent.without_archive:
        raise InvalidSpec(
            f"cannot drop {found}: no archive of it is named; make one by `partwarden archive --dsn … --partition "
            f"{shlex.quote(options.spelled(table.schema, name))} --to URL` and name it by --archive, or say "
            "--without-archive"
        )
    else:
        consent.show(f"NO ARCHIVE: these {rows:,} rows are lost for ever, and no command brings them back")
    consent.demand(name, proven is not None, "drop it")
    outcomes: list[Outcome] = []
    try:
        drop_database.remove(connection, found, proven, where, patience, outcomes, ties, large_objects)
    except Exception:
        # Such as a connection that was lost between two steps: what was done is printed before the reason.
        consent.show(*_done(outcomes))
        raise
    error, done = next((each.error for each in outcomes if each.error), None), _done(outcomes)
    about = {"partition": str(found), "rows": rows, "archive": where or None, "dropped": error is None}
    about["error"] = formats.error(error) if error else None
    formats.show(consent.output, about, [] if error else [str(found)], done)
    if error:
        left = " It is detached, a table of its own with all its rows; the same command goes on" if done else ""
        formats.names([f"Error: {error}.{left}"], err=True)
    return 1 if error else 0


def _prove(
    connection: Session, found: drop_database.Found, url: str, manifest_sha256: str | None
) -> tuple[Fingerprint, str]:
    """What the archive and the table both hold, and the archive's address."""
    formats.progress(f"reading the archive at {url}, and the table beside it")
    try:
        archive = open_archive(*resolve_address(url, manifest_sha256)).telling(formats.progress)
        return drop_database.compare(connection, found, archive), archive.url
    finally:
        formats.progress()


def _done(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{each.action.past} {each.action.noun} {each.action}" for each in outcomes if each.error is None]


# By a policy.


def _approve(target: Target, what: str, consent: Consent) -> int:
    cluster = Policies(target)
    policy = cluster.one()
    spec = parse_spec(policy.get("spec"))
    view = policies.view(policy, datetime.now(UTC), cluster.archives())
    partition = view.find(what, spec)
    name, archive = partition.name, (view.archives or {}).get(partition.name)
    if why := _why_not(policy, spec, partition):
        raise InvalidSpec(f"cannot approve {name} of {view.name}: {why}")
    archives = spec.retention is not None and spec.retention.archive is not None
    consent.show(*_describe(view.name, partition, archive, archives))
    if archives and consent.without_archive:
        raise InvalidSpec(f"{view.name} has spec.retention.archive: the operator drops nothing without one")
    if not archives and not consent.without_archive:
        raise InvalidSpec(
            f"cannot approve {name}: {view.name} has no spec.retention.archive, so its rows would be lost; say "
            "--without-archive"
        )
    if not archives:
        consent.show("NO ARCHIVE: its rows are lost for ever, and no command brings them back")
    consent.demand(name, archive is not None and archive.state == PROVEN, "let the operator drop it")
    change = approval(policy, partition)
    if change:
        cluster.edit(policy, change)
    annotation = (change or policy)["metadata"]["annotations"][APPROVAL]
    lines = [f"approved {name}: the operator drops it once its grace is over and its archive was read again"]
    if change and (keeper := manifest.keeper(policy)):
        lines += [f"{keeper} keeps this policy: put this line into metadata.annotations of the manifest in its source:"]
        lines += [f"  {APPROVAL}: {annotation}"]
    about = {"policy": view.name, "partition": name, "archive": archive.state if archive else None}
    formats.show(consent.output, {**about, "approved": annotation}, [name], lines)
    return 0


def approval(policy: Object, partition: PartitionStatus) -> dict[str, Any] | None:
    """What to merge into the policy so that the operator may drop the table; None where it is approved already.

    The table is named with its OID, and its bare name, which would approve a later table as well, is taken out. A
    status of an older operator says no OID: the bare name then has to do.
    """
    text = (policy["metadata"].get("annotations") or {}).get(APPROVAL, "")
    entry = partition.name if partition.oid is None else f"{partition.name}@{partition.oid}"
    if entry in parse({APPROVAL: text}, APPROVAL):
        return None
    others = [other for part in text.split(",") if (other := part.strip()) and other != partition.name]
    return {"metadata": {"annotations": {APPROVAL: ", ".join([*others, entry])}}}


def _why_not(policy: Object, spec: PartitionPolicySpec, partition: PartitionStatus) -> str | None:
    """Why an approval would mean nothing; None where it means something.

    The operator goes on to demand all the rest: the grace, a proven archive that is equal to the table, no hold.
    """
    retention, name = spec.retention, partition.name
    if retention is None:
        return "the policy has no spec.retention, so the operator never drops anything of it"
    if retention.on_expire is not OnExpire.DROP:
        return "spec.retention.onExpire is not Drop, so what has expired is kept as a table of its own"
    held, qualified = holds(policy["metadata"].get("annotations"), spec.holds), f"{spec.table.schema_}.{name}"
    called = frozenset({name, qualified, f"{name}@{partition.oid}", f"{qualified}@{partition.oid}"})
    if is_held(held, called) or partition.state is State.HELD:
        return f"{HOLD} names it; take it out there first"
    if partition.state not in (State.EXPIRED, State.DETACHED):
        keeps = f"spec.retention.keepFor ({retention.keep_for})"
        return f"it is {partition.state}: only what is older than {keeps} is dropped"
    if retention.approval is not Approval.MANUAL:
        return "spec.retention.approval is not Manual: the operator drops it without asking, once the grace is over"
    return None


def _describe(policy: str, partition: PartitionStatus, archive: ArchiveView | None, archives: bool) -> list[str]:
    """What there is, before the user is asked."""
    rows = "rows not counted yet" if partition.rows is None else f"about {partition.rows:,} rows"
    bounds, size = "[{}, {})".format(*ends(partition)), human(partition.bytes)
    lines = [f"{partition.name}, {bounds}: {rows}, {size}, {partition.state}, of {policy}"]
    if archive is not None:
        lines.append(f"archive {archive.name}: {archive.state}, {archive.location or 'nowhere yet'}")
    elif archives:
        lines.append("not archived yet: the operator archives and proves it before it drops anything")
    return lines
