"""What a person should know beside the actions: why nothing can be done, and what was seen and left alone."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DetachPending, InsufficientPrivilege, KeyOutOfRange, NotOwner, PartwardenError, ReadOnlyServer
from .interval import Range
from .inventory import Inventory, Membership, Parent, RelationKind, Server
from .keys import Codec
from .policy import Mode, TableSpec

OPTIONS_VERSION = 160000
"""From 16 on it is the grant of a membership that says what comes with it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know. ``error`` tells whose it is to mend; None is a notice that stops nothing."""

    reason: str
    object: str
    message: str
    error: PartwardenError | None = None

    @classmethod
    def of(cls, subject: str, error: PartwardenError) -> Finding:
        return cls(error.reason, subject, str(error), error)


def why_blocked(spec: TableSpec, inventory: Inventory, parent: Parent) -> list[Finding]:
    """Why no action can succeed. Looked for even when nothing is to be done: January is too late to learn of it."""
    server = inventory.server
    if spec.mode is not Mode.APPLY:
        return []
    if server.read_only:
        why = "a standby" if server.standby else "default_transaction_read_only is on"
        error: PartwardenError = ReadOnlyServer(
            f"the server is read-only ({why}): connect {server.database!r} through its primary"
        )
    elif not parent.may_own:
        error = NotOwner(
            f"role {server.user!r} is not the owner of {parent}, which is {parent.owner!r}: only the owner may attach "
            f"partitions; connect as that role, or {_membership(server, parent)}"
        )
    elif not parent.may_create:
        error = InsufficientPrivilege(
            f"role {server.user!r} or the owner of {parent} may not create tables in its schema: "
            f"GRANT CREATE ON SCHEMA {quoted(parent.schema)} TO {quoted(server.user)}, {quoted(parent.owner)}; "
            "the first needs USAGE as well"
        )
    else:
        return []
    return [Finding.of(str(parent), error)]


def _membership(server: Server, parent: Parent) -> str:
    """What gives the role all that the owner has."""
    owner, user = quoted(parent.owner), quoted(server.user)
    grant = f"GRANT {owner} TO {user}"
    if server.version >= OPTIONS_VERSION and parent.membership is not Membership.NONE:
        lacks = "SET" if parent.membership is Membership.WITHOUT_SET else "INHERIT"
        return f"{grant} WITH INHERIT TRUE, SET TRUE: it is a member of that role without the option {lacks}"
    if parent.membership is Membership.NOINHERIT:
        return f"ALTER ROLE {user} INHERIT: it is a member of that role, but NOINHERIT, and no GRANT changes that"
    if parent.membership is Membership.WITHOUT_INHERIT:
        return f"{grant}: it is a member of that role through one that is NOINHERIT"
    return grant


def quoted(identifier: str) -> str:
    """The identifier in quotes, for a statement that a person shall copy."""
    return '"' + identifier.replace('"', '""') + '"'


def pending_detaches(inventory: Inventory, wanted: list[Range]) -> list[Finding]:
    """Detaches that began and did not end: an error where a wanted range is concerned, else a notice."""
    findings = []
    for each in inventory.partitions:
        if not each.detach_pending:
            continue
        default = inventory.default
        rows = f"rows for {each.bounds} go into {default}" if default else f"inserts into {each.bounds} fail"
        message = (
            f"partition {each} is pending detach: its rows are invisible and {rows}; "
            f"finish it with ALTER TABLE … DETACH PARTITION {quoted(each.name)} FINALIZE"
        )
        if each.range is not None and any(each.range.overlaps(cell) for cell in wanted):
            findings.append(Finding.of(str(each), DetachPending(message)))
        else:
            findings.append(Finding("DetachPending", str(each), message))
    return findings


def unlike_the_parent(inventory: Inventory) -> list[Finding]:
    """One notice for each thing in which partitions differ from their parent where that matters."""
    parent = inventory.parent
    assert parent is not None
    found: dict[str, list[str]] = {}
    for each in inventory.partitions:
        for what in each.differs:
            found.setdefault(what, []).append(each.name)
    return [
        Finding(
            "DiffersFromParent",
            str(parent),
            f"{what} not as the parent's: {listed(names)}; new partitions are like the parent; {UNLIKE[what]}",
        )
        for what, names in sorted(found.items())
    ]


def forgotten(inventory: Inventory, codec: Codec) -> list[Finding]:
    """A notice for each table that seems to be one that was detached before a dump and restore of the database."""
    parent = inventory.parent
    assert parent is not None
    findings = []
    for each in inventory.strangers:
        try:
            ends = [codec.literal(end) for end in (each.marker.range.lower, each.marker.range.upper) if end is not None]
        except KeyOutOfRange:
            continue
        table = f"{quoted(each.schema)}.{quoted(each.name)}"
        message = (
            f"table {each} says in its comment that it was detached from {parent}, but it or {parent} had another OID "
            "then: it came out of a dump, or the comment is a copy, so nothing is done to it; if its rows are those of "
            f"that range, ALTER TABLE {quoted(parent.schema)}.{quoted(parent.name)} ATTACH PARTITION {table} FOR "
            f"VALUES FROM ('{ends[0]}') TO ('{ends[1]}'), and retention takes it up again; else take the line that "
            "begins with partwarden.dev/detached out of its comment"
        )
        findings.append(Finding("DetachedElsewhere", str(each), message))
    return findings


def partitioned_themselves(inventory: Inventory) -> list[Finding]:
    """One notice that names them: a new partition is a plain table whatever its siblings are."""
    names = [each.name for each in inventory.partitions if each.kind is RelationKind.PARTITIONED and each.range]
    if not names:
        return []
    message = (
        f"partitioned themselves: {listed(names)}; new partitions are plain tables, not partitioned like these; where "
        "they should be, create them by hand before they are due: a range that is covered is left alone"
    )
    return [Finding("SubPartitioned", str(inventory.parent), message)]


UNLIKE = {
    "owner": "mend it with ALTER TABLE … OWNER TO",
    "grants": "mend it with GRANT and REVOKE, where queries name the partition itself",
    "row security": "who queries the partition itself sees rows that the parent hides: mend it with ALTER TABLE … "
    "ENABLE (and FORCE) ROW LEVEL SECURITY",
    "replica identity": "what is replicated of it is identified otherwise: mend it with ALTER TABLE … REPLICA IDENTITY",
}


def listed(names: list[str]) -> str:
    """At most five of them."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def off_grid(spec: TableSpec, inventory: Inventory, managed: frozenset[int]) -> list[Finding]:
    """One notice that names the partitions whose bounds are not one cell of the grid."""
    others = [each for each in inventory.partitions if each.range is not None and each.oid not in managed]
    if not others:
        return []
    names = listed([each.name for each in others])
    message = (
        f"not one {spec.interval} of {spec.timezone} each: {names}; what they hold counts as covered, "
        "only the rest is created, and they are left alone"
    )
    return [Finding("OffGrid", str(spec.table), message)]
